// Several faces in the photo: the visitor touches their own.

import * as api from "../api.js";
import { message, say } from "../language.js";
import { show } from "../screen.js";
import { showPhoto, visit } from "../visit.js";

export function showFaces(go) {
  show("faces", (find) => {
    showPhoto(find("#photo"));
    find("#retake").addEventListener("click", () => go.camera());
    const order = visit.faces.map((face, index) => ({ face, index })).sort((a, b) => a.face.x - b.face.x);
    order.forEach(({ face, index }, position) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "face-box";
      const number = document.createElement("b");
      number.textContent = String(position + 1);
      button.append(number);
      say(button, () => message("faces.face", { number: position + 1 }), "aria-label");
      for (const [side, fraction] of [["left", face.x], ["top", face.y], ["width", face.w], ["height", face.h]]) {
        button.style[side] = `${100 * fraction}%`;
      }
      button.addEventListener("click", () => {
        visit.face = index;
        go.searching(() => api.chooseFace(index));
      });
      find("#boxes").append(button);
    });
  });
}
