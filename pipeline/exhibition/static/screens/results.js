// The paintings that were found, hung as on a wall: the closest large, the others below.

import * as api from "../api.js";
import { announce, notice } from "../announcer.js";
import { label } from "../features.js";
import { counted, local, message, say } from "../language.js";
import { rearrange } from "../rearrange.js";
import { part, show } from "../screen.js";
import { clearVerdicts, freshCount, freshVerdicts, give, mark, verdictOf } from "../verdicts.js";
import { showPhoto, visit } from "../visit.js";
import { openRefine } from "./refine.js";

const OTHERS_IN_A_ROW = 4; // beside the closest, on wide screens

/** Show what was found; `from` is the face of the painting that the visitor comes back from. */
export function showResults(go, from) {
  show("results", (find) => {
    const hang = find("#hang");
    const cards = new Map();
    const retell = () => {
      hangAll(hang, cards, go, () => tray(find));
      chips(find("#chips"), change);
      tray(find);
    };
    /** Ask the server for other results, show them, and say so. */
    const ask = async (asked, words) => {
      try {
        visit.results = await asked();
        rearrange(hang, retell);
        announce(words);
      } catch (refusal) {
        go.refuse(refusal);
      }
    };
    const closest = () => local(visit.results.items[0].work.title);
    const change = (settings) =>
      ask(
        () => api.choose(settings),
        () => message("results.filtered", { title: closest() }),
      );

    showPhoto(find("#photo"));
    retell();
    find("#others").addEventListener("click", async ({ currentTarget }) => {
      if (!freshCount()) {
        notice(() => message("results.nothing_judged"));
        return;
      }
      currentTarget.disabled = true;
      await ask(
        async () => {
          const results = await api.judge(...freshVerdicts());
          clearVerdicts();
          return results;
        },
        () => message("results.updated", { round: visit.results.round, title: closest() }),
      );
      currentTarget.disabled = false;
      find("#title").focus({ preventScroll: true });
      scrollTo({ top: 0 });
    });
    find("#refine").addEventListener("click", () =>
      openRefine(go, (results) => {
        visit.results = results;
        rearrange(hang, retell);
      }),
    );
    find("#restart").addEventListener("click", () => {
      clearVerdicts();
      ask(api.restart, () => message("results.restarted"));
      find("#title").focus({ preventScroll: true });
    });
    find("#retake").addEventListener("click", () => go.camera());
    const back = from && cards.get(from)?.querySelector(".picture");
    if (back) {
      back.focus({ preventScroll: true });
      back.scrollIntoView({ block: "center", behavior: "instant" });
    }
  });
}

function hangAll(hang, cards, go, judged) {
  const shown = visit.results.items.map((item) => {
    const card = cards.get(item.face) ?? part("part-card");
    cards.set(item.face, card);
    setCard(card, item, go, judged);
    return card;
  });
  hang.style.setProperty("--rows", String(Math.max(1, Math.ceil((shown.length - 1) / OTHERS_IN_A_ROW))));
  hang.replaceChildren(...shown);
}

function setCard(card, item, go, judged) {
  const find = (selector) => card.querySelector(selector);
  const { work } = item;
  const title = () => local(work.title);
  card.dataset.face = item.face;
  card.classList.toggle("closest", item.rank === 1);
  const image = find("img");
  if (image.getAttribute("src") !== item.picture) image.src = item.picture;
  say(find(".picture"), () => message("results.open_label", { title: title() }), "aria-label");
  say(find(".work-title"), title);
  say(find(".artist"), () => [work.artist ?? message("results.unknown_artist"), work.year].filter(Boolean).join(", "));
  say(find(".room span"), () => local(work.room));
  find(".room").hidden = !work.room;
  find(".rank").hidden = item.rank !== 1;
  const [yes, no] = [find(".verdict-yes"), find(".verdict-no")];
  say(yes, () => message("results.yes_label", { title: title() }), "aria-label");
  say(no, () => message("results.no_label", { title: title() }), "aria-label");
  const verdict = (given) => () => {
    give(item, given);
    mark(item, yes, no, card);
    judged();
  };
  yes.onclick = verdict("like");
  no.onclick = verdict("unlike");
  mark(item, yes, no, card);
  find(".picture").onclick = () => go.painting(item);
  find(".why").hidden = item.rank !== 1;
  find(".look").onclick = () => go.painting(item);
  find(".why").onclick = () => go.painting(item, { why: true });
}

/** Show what is asked of the paintings, each with a way to take it back. */
function chips(list, change) {
  const { with: wanted, without } = visit.results;
  const chip = (name, side) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button chip";
    const words = document.createElement("span");
    const asked = () => `${label(name)}: ${message(`refine.${side}`)}`;
    say(words, asked);
    say(button, () => `${asked()}. ${message("results.remove", { feature: label(name) })}`, "aria-label");
    button.append(words, icon("cross"));
    button.addEventListener("click", () => {
      const keep = (names) => names.filter((other) => other !== name);
      change({ with: keep(wanted), without: keep(without) });
    });
    item.append(button);
    return item;
  };
  list.replaceChildren(...wanted.map((name) => chip(name, "with")), ...without.map((name) => chip(name, "without")));
  if (list.children.length) {
    const count = document.createElement("li");
    say(count, () => counted("results.searched", visit.results.searched));
    list.append(count);
  }
}

function tray(find) {
  const count = freshCount();
  find("#judged").hidden = !count;
  find("#judged b").textContent = String(count);
  say(find("#judged span"), () => counted("results.judged", freshCount()));
  const { round, with: wanted, without, items } = visit.results;
  find("#restart").hidden = !(round || wanted.length || without.length || items.some((item) => verdictOf(item)));
}

function icon(name) {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  drawing.append(use);
  return drawing;
}
