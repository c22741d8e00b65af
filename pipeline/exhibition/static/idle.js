// Nobody there: the page asks, counts down, and forgets. What is looked at without a touch keeps the visit alive, too.

import { config } from "./config.js";
import { silence, status, visiting } from "./api.js";
import { counted, say } from "./language.js";

const EVENTS = ["pointerdown", "pointermove", "keydown", "wheel", "scroll", "touchmove", "input"];
const limit = config.idleSeconds * 1000;
const warning = Math.min(15_000, limit / 2); // the server waits twice the limit

let touched = Date.now();
let onIdle = () => {};
let wanted = () => true;

const dialog = () => document.getElementById("idle");

/** Begin to watch. `needed` says whether there is anything to forget now; `end` forgets it. */
export function watch(needed, end) {
  wanted = needed;
  onIdle = end;
  for (const name of EVENTS) addEventListener(name, touch, { passive: true, capture: true });
  document.getElementById("idle-stay").addEventListener("click", stay);
  document.getElementById("idle-finish").addEventListener("click", () => onIdle());
  dialog().addEventListener("cancel", stay);
  setInterval(look, 500);
}

export function stay() {
  touched = Date.now();
  if (dialog().open) dialog().close();
}

function touch() {
  if (!dialog().open) touched = Date.now();
}

function look() {
  if (!wanted()) {
    stay();
    return;
  }
  const left = touched + limit + warning - Date.now();
  if (left <= 0) {
    stay();
    onIdle();
  } else if (left <= warning) {
    const seconds = Math.ceil(left / 1000);
    const words = () => counted("idle.seconds", seconds);
    say(document.getElementById("idle-seconds"), words);
    if (!dialog().open) {
      dialog().showModal();
      say(document.getElementById("count"), words);
    } else if (seconds === 5) {
      say(document.getElementById("count"), words);
    }
  } else if (visiting() && silence() > limit / 2) {
    status().catch(() => {});
  }
}
