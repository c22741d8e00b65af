// The welcome: a wall of the collection's faces, changing slowly.

import { config } from "../config.js";
import { show } from "../screen.js";

const EVERY = 5000;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export function showWelcome(go) {
  show("welcome", (find, root) => {
    find("#begin").addEventListener("click", () => go.consent());
    const count = config.faces ?? 0;
    if (!count) return undefined;
    find(".silhouette").remove();
    const [left, right] = root.querySelectorAll(".side img");
    let [front, back] = root.querySelectorAll(".faces img");
    let at = Math.floor(Math.random() * count);
    const stride = Math.max(1, Math.floor(count / 7));
    hang(front, at);
    hang(left, (at + stride) % count);
    hang(right, (at + 2 * stride) % count);
    const timer = setInterval(() => {
      if (still.matches || document.hidden || count < 4) return;
      at = (at + stride + 1) % count;
      hang(back, at, () => {
        front.classList.remove("shown");
        back.classList.add("shown");
        [front, back] = [back, front];
      });
    }, EVERY);
    return () => clearInterval(timer);
  });
}

function hang(image, item, then = () => {}) {
  image.onload = () => {
    image.hidden = false;
    requestAnimationFrame(then);
  };
  image.src = `/pictures/${item}.jpg`;
}
