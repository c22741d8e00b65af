// What the page knows of the visitor who is here; forgotten as a whole.

import * as memory from "./memory.js";
import { clearVerdicts } from "./verdicts.js";

export const visit = { photo: null, faces: [], face: 0, results: null };

/** Take a photo instead of any before it, with all that was found for that one. */
export function takePhoto(blob) {
  memory.dropAll();
  clearVerdicts();
  Object.assign(visit, { photo: blob, faces: [], face: 0, results: null });
  memory.keep("photo", blob);
}

export function clear() {
  memory.dropAll();
  clearVerdicts();
  Object.assign(visit, { photo: null, faces: [], face: 0, results: null });
}

/** Show the photo in an image, the visitor's face as near to the middle as it can be. */
export function showPhoto(image) {
  image.src = memory.kept("photo");
  const face = visit.faces[visit.face];
  if (face) image.style.objectPosition = `${100 * (face.x + face.w / 2)}% ${100 * (face.y + face.h / 2)}%`;
}
