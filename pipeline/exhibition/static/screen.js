// Screens: one at a time, made of its template and removed with all that was on it.

import { hideNotice } from "./announcer.js";
import { fill } from "./language.js";

let leave = () => {};
let shown = null;

export const shownScreen = () => shown;

/** Return a copy of a template's element, with its words. */
export function part(name) {
  const element = document.getElementById(name).content.firstElementChild.cloneNode(true);
  const holder = document.createElement("div");
  holder.append(element);
  fill(holder);
  return element;
}

/**
 * Show a screen.
 *
 * set(find, root) makes it live, `find` being querySelector in it; what it returns is called when the screen is left.
 */
export function show(name, set) {
  leave();
  leave = () => {};
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  hideNotice();
  const root = part(`screen-${name}`);
  const main = document.getElementById("main");
  main.replaceChildren(root);
  shown = name;
  document.body.dataset.screen = name;
  scrollTo({ top: 0, behavior: "instant" });
  root.querySelector("#title").focus({ preventScroll: true });
  leave = set((selector) => root.querySelector(selector), root) ?? leave;
}
