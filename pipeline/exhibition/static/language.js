// Words in the visitor's language. Every element remembers what it says, so that another language needs no reload.

import { config } from "./config.js";

const said = new WeakMap(); // element → attribute or "" (its text) → how to say it
const attributes = { t: "", tLabel: "aria-label", tAlt: "alt" };
let current = config.language;

export const language = () => current;

/** Return a message; {names} in it are replaced by values. */
export function message(key, values = {}) {
  const text = config.messages[current][key] ?? key;
  return text.replace(/\{([A-Za-z]\w*)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

export const has = (key) => key in config.messages[current];

/** Return the form of a message that belongs to a number. */
export function counted(key, count) {
  const form = new Intl.PluralRules(current).select(count);
  const name = has(`${key}.${form}`) ? `${key}.${form}` : `${key}.other`;
  return message(name, { count: number(count) });
}

export const number = (value) => new Intl.NumberFormat(current).format(value);
export const percent = (value) => new Intl.NumberFormat(current, { style: "percent" }).format(value);
export const list = (words) => new Intl.ListFormat(current, { type: "conjunction" }).format(words);
const DATE = { day: "numeric", month: "long", year: "numeric" };
export const today = () => new Intl.DateTimeFormat(current === "en" ? "en-GB" : current, DATE).format(new Date());

/** Return a text that the museum gives by language. */
export const local = (text) => (text ? text[current] ?? Object.values(text)[0] ?? "" : "");

/** Have an element say what `words` returns, now and in every language chosen later. */
export function say(element, words, attribute = "") {
  const all = said.get(element) ?? new Map();
  all.set(attribute, words);
  said.set(element, all);
  element.toggleAttribute("data-said", true);
  put(element, attribute, words());
}

/** Fill in all messages that are named in the markup below an element. */
export function fill(root) {
  for (const [name, attribute] of Object.entries(attributes)) {
    const selector = `[data-${name.replace(/[A-Z]/, (letter) => `-${letter.toLowerCase()}`)}]`;
    for (const element of root.querySelectorAll(selector)) {
      const key = element.dataset[name];
      say(element, () => message(key), attribute);
    }
  }
}

/** Speak another language from now on. */
export function speak(name) {
  current = name;
  document.documentElement.lang = name;
  for (const element of document.querySelectorAll("[data-said]")) {
    for (const [attribute, words] of said.get(element) ?? []) put(element, attribute, words());
  }
}

function put(element, attribute, words) {
  if (attribute) element.setAttribute(attribute, words);
  else if (element.textContent !== words) element.textContent = words;
}
