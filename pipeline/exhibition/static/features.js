// Which attributes are offered, and which are said of a visitor.

import { config } from "./config.js";
import { local } from "./language.js";

// What is to be seen at a glance comes first.
const FIRST = [
  "Smiling", "Eyeglasses", "Wearing_Hat", "Mustache", "Goatee", "No_Beard",
  "Bangs", "Wavy_Hair", "Black_Hair", "Blond_Hair", "Gray_Hair", "Wearing_Earrings",
];
// Celeb-A's labellers judged these, and they are no features of a painting.
const NEVER = ["Attractive", "Blurry"];
// A museum does not say these to a guest's face, be they right or wrong.
const UNSAID = [
  ...NEVER, "Bags_Under_Eyes", "Bald", "Big_Lips", "Big_Nose", "Chubby", "Double_Chin", "Heavy_Makeup", "Male",
  "Narrow_Eyes", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Young", "No_Beard", "5_o_Clock_Shadow",
];

const known = new Map(config.attributes.map((attribute) => [attribute.name, attribute.labels]));

export const label = (name) => local(known.get(name)) || name.replaceAll("_", " ");
export const sayable = (names) => names.filter((name) => known.has(name) && !UNSAID.includes(name));

/** Return [first ones, all others] of the switches. */
export function offered() {
  const names = [...known.keys()].filter((name) => !NEVER.includes(name));
  const first = FIRST.filter((name) => names.includes(name));
  for (const name of names) {
    if (first.length < Math.min(6, names.length) && !first.includes(name)) first.push(name);
  }
  return [first, names.filter((name) => !first.includes(name))];
}
