// The sheet that the visitor takes along.

import { config } from "../config.js";
import { floorMap } from "../floor_map.js";
import { local, message, say, today } from "../language.js";
import { show } from "../screen.js";
import { showPhoto } from "../visit.js";

export function showPrint(go, item) {
  show("print", (find) => {
    const { work } = item;
    say(find(".sheet-museum"), () => local(config.title));
    say(find(".sheet-date"), today);
    showPhoto(find(".sheet-you"));
    find(".sheet-painting").addEventListener("error", ({ currentTarget }) => {
      currentTarget.src = item.picture; // its file has gone
    }, { once: true });
    find(".sheet-painting").src = item.whole;
    say(find(".sheet-painting"), () => message("painting.whole", { title: local(work.title) }), "alt");
    say(find(".sheet-title"), () => local(work.title));
    say(find(".sheet-artist"), () =>
      [work.artist ?? message("results.unknown_artist"), work.year].filter(Boolean).join(", "),
    );
    say(find(".sheet-room"), () => local(work.room));
    const map = floorMap(work);
    if (map) find(".sheet-map").append(map);
    find(".sheet-where").hidden = !map && !work.room;
    find("#back").addEventListener("click", () => go.painting(item));
    find("#print").addEventListener("click", () => print());
    find("#end").addEventListener("click", () => go.finish());
    const printed = () => find("#end").focus();
    addEventListener("afterprint", printed);
    return () => removeEventListener("afterprint", printed);
  });
}
