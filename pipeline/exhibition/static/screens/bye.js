// Goodbye, and after a while the welcome for the next visitor.

import { announce } from "../announcer.js";
import { message } from "../language.js";
import { show } from "../screen.js";

const STAY = 12_000;

export function showBye(go) {
  show("bye", (find) => {
    announce(() => message("bye.title"));
    find("#begin").addEventListener("click", () => go.welcome());
    const timer = setTimeout(() => go.abandon(), STAY);
    return () => clearTimeout(timer);
  });
}
