// The search, with others before us and a ring that fills.

import * as api from "../api.js";
import { Refusal, pause } from "../api.js";
import { counted, message, say } from "../language.js";
import { show } from "../screen.js";
import { showPhoto, visit } from "../visit.js";

const EVERY = 300;
const PATIENCE = 5; // polls without an answer, one after the other
// A photo with one of these has to be taken again; with another trouble it may be sent again.
const PHOTO_AT_FAULT = [
  "no_face", "not_an_image", "unsupported_type", "too_large", "too_many_pixels", "face_too_small", "search_failed",
];

/** Call `start` (it sends the photo, or chooses a face in it), wait for what is found, and show that. */
export function showSearching(go, start) {
  show("searching", (find, root) => {
    showPhoto(find("#photo"));
    follow(go, start, find, root).catch((refusal) => {
      if (root.isConnected) go.refuse(refusal, PHOTO_AT_FAULT.includes(refusal.code) ? go.camera : go.review);
    });
  });
}

async function follow(go, start, find, root) {
  const answer = await start();
  if (!root.isConnected) return;
  if (answer.faces) {
    Object.assign(visit, { faces: answer.faces, face: answer.chosen ?? 0 });
    showPhoto(find("#photo"));
    if (answer.chosen === null) {
      go.faces();
      return;
    }
  }
  let silent = 0;
  while (root.isConnected) {
    let status = null;
    try {
      status = await api.status();
      silent = 0;
    } catch (refusal) {
      silent += 1;
      if (refusal.code !== "network" || silent === PATIENCE) throw refusal;
    }
    if (!root.isConnected) return;
    if (status?.state === "failed") throw new Refusal(status.error.code, status.error.message);
    if (status?.state === "ready") {
      visit.results = status.results;
      go.results();
      return;
    }
    if (status) tell(find, status);
    await pause(EVERY);
  }
}

function tell(find, { ahead, progress }) {
  const percent = Math.round(100 * progress);
  find("#progress").setAttribute("aria-valuenow", String(percent));
  find("#run").style.strokeDashoffset = String(100 - percent);
  const state = find("#state");
  const words = () => (ahead ? counted("search.ahead", ahead) : message("search.working"));
  if (state.textContent !== words()) {
    say(state, words);
    say(document.getElementById("live"), words);
  }
}
