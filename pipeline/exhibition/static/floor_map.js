// The museum's map with the visitor and a painting on it.

import { config } from "./config.js";
import { local, message, say } from "./language.js";
import { part } from "./screen.js";

/** Return the map with a work marked, null if the museum has no map or the work no place on it. */
export function floorMap(work) {
  const map = config.map;
  if (!map || work.x === null || work.y === null) return null;
  const figure = part("part-map");
  const picture = figure.querySelector(".plan-picture");
  picture.querySelector("img").src = map.url;
  picture.style.setProperty("--ratio", String(map.width / map.height));
  picture.style.aspectRatio = `${map.width} / ${map.height}`;
  say(picture, () => message("painting.map", { room: local(work.room) }), "aria-label");
  place(picture.querySelector(".pin.there"), work);
  if (map.you) place(picture.querySelector(".pin.you"), map.you);
  else for (const mark of figure.querySelectorAll(".you")) mark.remove();
  return figure;
}

function place(pin, { x, y }) {
  pin.style.left = `${100 * x}%`;
  pin.style.top = `${100 * y}%`;
}
