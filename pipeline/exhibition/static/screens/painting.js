// One painting: the whole of it, its words, why it was found, and where it hangs.

import * as api from "../api.js";
import { Refusal, pause } from "../api.js";
import { announce, explainRefusal } from "../announcer.js";
import { label, sayable } from "../features.js";
import { floorMap } from "../floor_map.js";
import { counted, list, local, message, percent, say } from "../language.js";
import * as memory from "../memory.js";
import { show } from "../screen.js";
import { give, mark } from "../verdicts.js";

const EVERY = 500;
const MOST_NAMED = 5;

/** Show an item of the results; with `why` the explanation is asked for at once. */
export function showPainting(go, item, { why = false } = {}) {
  show("painting", (find, root) => {
    const { work } = item;
    const title = () => local(work.title);
    words(find, work);
    say(find("#whole"), () => message("painting.whole", { title: title() }), "alt");
    find("#whole").addEventListener("load", ({ currentTarget: { style, naturalWidth, naturalHeight } }) => {
      style.setProperty("--ratio", String(naturalWidth / naturalHeight)); // small pictures are enlarged, too
    });
    find("#whole").addEventListener("error", ({ currentTarget }) => { // its file has gone: the face alone, unmarked
      find("#mark").hidden = true;
      currentTarget.src = item.picture;
    }, { once: true });
    find("#whole").src = item.whole;
    markFace(find("#mark"), item.box);

    const [yes, no] = [find("#yes"), find("#no")];
    say(yes, () => message("results.yes_label", { title: title() }), "aria-label");
    say(no, () => message("results.no_label", { title: title() }), "aria-label");
    for (const [button, verdict] of [[yes, "like"], [no, "unlike"]]) {
      button.addEventListener("click", () => {
        give(item, verdict);
        mark(item, yes, no, root);
      });
    }
    mark(item, yes, no, root);

    const map = floorMap(work);
    if (map) {
      find("#map").append(map);
      find("#map").hidden = false;
    }
    find("#where").hidden = !map && !work.room;
    find("#back").addEventListener("click", () => go.results(item.face));
    find("#print-page").addEventListener("click", () => go.print(item));
    find("#why").addEventListener("click", () => explain(go, item, find, root));
    if (why) {
      explain(go, item, find, root);
      find(".why-panel").scrollIntoView({ block: "nearest" });
    }
    return () => {
      memory.drop("why-photo");
      memory.drop("why-painting");
    };
  });
}

function words(find, work) {
  const optional = (id, text) => {
    say(find(id), text);
    find(id).hidden = !text();
  };
  say(find("#title"), () => local(work.title));
  say(find("#artist"), () => [work.artist ?? message("results.unknown_artist"), work.year].filter(Boolean).join(", "));
  optional("#text", () => local(work.text));
  optional("#credit", () => work.credit ?? "");
  say(find("#room span"), () => local(work.room));
  find("#room").hidden = !work.room;
}

function markFace(mark, box) {
  mark.hidden = !box;
  if (!box) return;
  for (const [side, fraction] of [["left", box.x], ["top", box.y], ["width", box.w], ["height", box.h]]) {
    mark.style[side] = `${100 * fraction}%`;
  }
}

async function explain(go, { face }, find, root) {
  find("#why-ask").hidden = true;
  find("#why-working").hidden = false;
  try {
    let answer = await api.explain(face);
    while (answer.state === "working") {
      const { ahead } = answer;
      say(find("#why-state"), () => (ahead ? counted("search.ahead", ahead) : message("why.working")));
      await pause(EVERY);
      if (!root.isConnected) return;
      answer = await api.explanation(face).catch((refusal) => {
        if (refusal.code !== "not_found") throw refusal;
        return api.explain(face); // the slider was moved meanwhile, and this explains another score
      });
    }
    if (answer.state === "failed") throw new Refusal("explanation_failed");
    const [photo, painting] = [await api.explained(face, "photo"), await api.explained(face, "painting")];
    if (!root.isConnected) return;
    find("#why-photo").src = memory.keep("why-photo", photo);
    find("#why-painting").src = memory.keep("why-painting", painting);
    tell(find, answer);
    find("#why-answer").hidden = false;
    announce(() => find("#shared").textContent);
  } catch (refusal) {
    if (!root.isConnected || refusal.code === "left") return;
    if (refusal.code === "explanation_failed") explainAgain(find, () => message("why.failed"));
    else if (["forgotten", "forbidden"].includes(refusal.code)) go.refuse(refusal);
    else explainAgain(find, explainRefusal(refusal));
  } finally {
    find("#why-working").hidden = true;
  }
}

function explainAgain(find, sentence) {
  find("#why-ask").hidden = false;
  say(find("#why-ask p"), sentence);
  say(find("#why span"), () => message("action.again"));
  announce(sentence);
}

function tell(find, { identityShare, shared }) {
  find("#share").style.width = `${100 * identityShare}%`;
  say(find("#share-face"), () => message("why.face", { percent: percent(identityShare) }));
  say(find("#share-features"), () => message("why.features", { percent: percent(1 - identityShare) }));
  const names = sayable(shared ?? []).slice(0, MOST_NAMED);
  const lower = (text) => text.charAt(0).toLocaleLowerCase() + text.slice(1);
  say(find("#shared"), () =>
    names.length
      ? message("why.shared", { features: list(names.map((name) => lower(label(name)))) })
      : message("why.shared_none"),
  );
}
