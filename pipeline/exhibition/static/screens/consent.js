// What happens to the photo, and the visitor's consent to it.

import * as api from "../api.js";
import { config } from "../config.js";
import { message, say } from "../language.js";
import { show } from "../screen.js";

export function showConsent(go) {
  show("consent", (find, root) => {
    const forget = find('[data-t="consent.forget"]');
    say(forget, () => message("consent.forget", { seconds: Math.round(config.idleSeconds) }));
    find("#decline").addEventListener("click", () => go.welcome());
    find("#agree").addEventListener("click", async ({ currentTarget }) => {
      currentTarget.disabled = true;
      try {
        await api.begin();
        if (root.isConnected) go.camera();
        else api.forget(); // the visitor has left meanwhile
      } catch (refusal) {
        currentTarget.disabled = false;
        go.refuse(refusal);
      }
    });
  });
}
