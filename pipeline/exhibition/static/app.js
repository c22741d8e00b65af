// The visit from the welcome to the goodbye: which screen follows which, and what happens when something goes wrong.

import { explainRefusal, notice } from "./announcer.js";
import * as api from "./api.js";
import * as camera from "./camera.js";
import { config } from "./config.js";
import * as idle from "./idle.js";
import { fill, language, local, say, speak } from "./language.js";
import { shownScreen } from "./screen.js";
import { showBye } from "./screens/bye.js";
import { showCamera } from "./screens/camera.js";
import { showConsent } from "./screens/consent.js";
import { showFaces } from "./screens/faces.js";
import { showPainting } from "./screens/painting.js";
import { showPrint } from "./screens/print.js";
import { showResults } from "./screens/results.js";
import { showReview } from "./screens/review.js";
import { showSearching } from "./screens/searching.js";
import { showWelcome } from "./screens/welcome.js";
import { clear } from "./visit.js";

const QUIET = ["welcome", "bye"]; // left as they are when nobody is there
const NOTHING_BEGUN = [...QUIET, "consent"];
const RELOAD_AFTER = 4000;
const find = (id) => document.getElementById(id);

const go = {
  welcome: () => to(showWelcome),
  consent: () => to(showConsent),
  camera: () => to(showCamera),
  review: () => to(showReview),
  faces: () => to(showFaces),
  searching: (start) => to(showSearching, start),
  results: (from) => to(showResults, from),
  painting: (item, options) => to(showPainting, item, options),
  print: (item) => to(showPrint, item),
  /** End the visit: everything of it is forgotten, here and on the server. */
  async finish() {
    const forgotten = api.forget();
    clear();
    to(showBye);
    await forgotten;
  },
  /** Nobody was there: the same without a goodbye, in the museum's language. */
  async abandon() {
    const forgotten = api.forget();
    clear();
    speakIn(config.language);
    go.welcome();
    await forgotten;
  },
  /** Say what went wrong, on the screen that is shown or after `back` has shown another. */
  refuse(refusal, back = () => {}) {
    if (refusal.code === "left") return;
    if (refusal.code === "forgotten") {
      api.forget();
      clear();
      go.welcome();
    } else if (refusal.code === "forbidden") {
      setTimeout(() => location.reload(), RELOAD_AFTER);
    } else {
      back();
    }
    notice(explainRefusal(refusal));
  },
};

function to(screen, ...given) {
  camera.close();
  screen(go, ...given);
  find("finish").hidden = NOTHING_BEGUN.includes(shownScreen());
}

function speakIn(name) {
  speak(name);
  for (const button of find("languages").children) button.setAttribute("aria-pressed", String(button.lang === name));
}

function languageButtons() {
  const group = find("languages");
  group.hidden = config.languages.length < 2;
  for (const name of config.languages) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button plain";
    button.lang = name;
    const [full, short] = [document.createElement("span"), document.createElement("abbr")];
    full.textContent = config.messages[name].language;
    short.textContent = name.toUpperCase();
    button.setAttribute("aria-label", config.messages[name].language);
    button.append(full, short);
    button.addEventListener("click", () => speakIn(name));
    group.append(button);
  }
}

say(find("museum"), () => local(config.title));
say(document.querySelector("title"), () => local(config.title));
fill(document);
languageButtons();
speakIn(language());
find("demo").hidden = !config.demo;
find("finish").addEventListener("click", () => go.finish());
find("notice-close").addEventListener("click", () => {
  find("notice").hidden = true;
  document.querySelector("#title").focus({ preventScroll: true });
});
addEventListener("pagehide", () => {
  camera.close();
  api.forgetOnLeaving();
  clear();
});
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload(); // what the page showed is forgotten
});
idle.watch(
  () => !QUIET.includes(shownScreen()),
  () => go.abandon(),
);
go.welcome();
