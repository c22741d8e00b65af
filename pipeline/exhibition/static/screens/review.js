// The photo, before anything is done with it.

import * as api from "../api.js";
import { Refusal } from "../api.js";
import { show } from "../screen.js";
import { showPhoto, visit } from "../visit.js";

export function showReview(go) {
  show("review", (find) => {
    const photo = find("#photo");
    photo.addEventListener("error", () => go.refuse(new Refusal("not_an_image"), go.camera));
    showPhoto(photo);
    find("#retake").addEventListener("click", () => go.camera());
    find("#use").addEventListener("click", () => go.searching(() => api.sendPhoto(visit.photo)));
  });
}
