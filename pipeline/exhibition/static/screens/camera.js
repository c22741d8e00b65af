// The photo booth: a mirror with an oval, a count-down; or a photo from the device.

import * as camera from "../camera.js";
import { announce } from "../announcer.js";
import { pause } from "../api.js";
import { message, say } from "../language.js";
import { show } from "../screen.js";
import { takePhoto } from "../visit.js";

const COUNT_FROM = 3;
const SECOND = 1000;

export function showCamera(go) {
  show("camera", (find, root) => {
    const [video, text, shutter] = [find("#preview"), find("#camera-text"), find("#shoot")];
    const take = (photo) => {
      takePhoto(photo);
      go.review();
    };
    const start = async () => {
      root.dataset.camera = "waiting";
      say(find("#title"), () => message("camera.title"));
      say(text, () => message("camera.waiting"));
      try {
        await camera.open(video);
        if (!root.isConnected) return;
        root.dataset.camera = "on";
        say(text, () => message("camera.text"));
        announce(() => message("camera.ready"));
        shutter.hidden = shutter.disabled = false;
        if (document.activeElement === find("#title")) shutter.focus({ preventScroll: true });
      } catch (error) {
        if (root.isConnected) without(find, root, error.message === "absent" ? "absent" : "refused");
      }
    };
    shutter.addEventListener("click", async () => {
      shutter.disabled = true;
      root.dataset.camera = "counting";
      say(text, () => message("camera.counting"));
      for (let left = COUNT_FROM; left > 0 && root.isConnected; left -= 1) {
        count(find("#number"), left);
        await pause(SECOND);
      }
      document.getElementById("count").textContent = "";
      if (root.isConnected) take(await camera.shoot(video));
    });
    find("#upload").addEventListener("click", () => find("#file").click());
    find("#camera-again").addEventListener("click", () => {
      find("#camera-again").hidden = true;
      start();
    });
    find("#file").addEventListener("change", ({ currentTarget }) => {
      const [file] = currentTarget.files;
      currentTarget.value = "";
      if (file) take(file);
    });
    start();
  });
}

function count(number, left) {
  number.hidden = false;
  number.textContent = String(left);
  document.getElementById("count").textContent = String(left);
  for (const animation of number.getAnimations()) animation.currentTime = 0;
}

/** Go on without a camera: the sentence says why, and choosing a photo is what is left. */
function without(find, root, why) {
  root.dataset.camera = "off";
  const words = () => message(`camera.${why}`);
  say(find("#title"), () => message("camera.off_title"));
  say(find("#camera-text"), words);
  announce(words);
  find("#shoot").hidden = true;
  find("#camera-again").hidden = false;
  const upload = find("#upload");
  upload.classList.add("primary", "large");
  say(upload.querySelector("span"), () => message("action.upload_only"));
  upload.focus();
}
