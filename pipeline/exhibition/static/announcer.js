// What is said to everybody: notices on the page, and news for those who listen to it.

import { config } from "./config.js";
import { has, message, say } from "./language.js";

const find = (id) => document.getElementById(id);

/** Say something to screen readers, when they are done with what they say. */
export function announce(words) {
  say(find("live"), words);
}

/** Show a sentence at the top of the page until it is closed, or the next screen comes. */
export function notice(words) {
  say(find("notice-text"), words);
  find("notice").hidden = false;
  scrollTo({ top: 0 });
}

export function hideNotice() {
  find("notice").hidden = true;
  find("notice-text").textContent = "";
}

/** Return what a refusal says, in the visitor's language if that is known. */
export function explainRefusal(refusal) {
  const key = `error.${refusal.code ?? "unexpected"}`;
  const megabytes = Math.floor(config.maxUploadBytes / 2 ** 20);
  return () => (has(key) ? message(key, { megabytes }) : refusal.code ? refusal.message : message("error.unexpected"));
}
