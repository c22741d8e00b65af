// What counts more, and what a painting has to show: a sheet over the results, which follow at once.

import * as api from "../api.js";
import { explainRefusal } from "../announcer.js";
import { config } from "../config.js";
import { label, offered } from "../features.js";
import { counted, message, say } from "../language.js";
import { part } from "../screen.js";
import { visit } from "../visit.js";

const SETTLE = 250; // milliseconds after the slider's last move

/** Open the sheet; `changed` gets new results. */
export function openRefine(go, changed) {
  const dialog = part("part-refine");
  const find = (selector) => dialog.querySelector(selector);
  const opener = document.activeElement;
  const choice = new Map([
    ...visit.results.with.map((name) => [name, "with"]),
    ...visit.results.without.map((name) => [name, "without"]),
  ]);
  const names = (side) => [...choice].filter(([, chosen]) => chosen === side).map(([name]) => name);
  const switches = new Map();
  const weight = find("#weight");

  /** Ask for what is chosen now; if there is nothing, show what was before. */
  const ask = async () => {
    find("#problem").textContent = "";
    try {
      changed(await api.choose({ weight: Number(weight.value), with: names("with"), without: names("without") }));
    } catch (refusal) {
      if (!dialog.isConnected || refusal.code === "left") return;
      if (["forgotten", "forbidden"].includes(refusal.code)) {
        go.refuse(refusal);
        return;
      }
      say(find("#problem"), explainRefusal(refusal));
      choice.clear();
      for (const name of visit.results.with) choice.set(name, "with");
      for (const name of visit.results.without) choice.set(name, "without");
      weight.value = String(visit.results.weight);
    }
    tell();
  };
  const tell = () => {
    say(find("#left"), () => counted("refine.left", visit.results.searched));
    find("#clear").hidden = !choice.size;
    for (const [name, inputs] of switches) {
      for (const input of inputs) input.checked = input.value === (choice.get(name) ?? "any");
    }
  };
  const addSwitch = (name, to) => {
    const field = part("part-switch");
    say(field.querySelector("legend"), () => label(name));
    const inputs = [...field.querySelectorAll("input")];
    for (const input of inputs) {
      input.name = `switch-${name}`;
      input.addEventListener("change", () => {
        if (input.value === "any") choice.delete(name);
        else choice.set(name, input.value);
        ask();
      });
    }
    switches.set(name, inputs);
    to.append(field);
  };

  const [first, rest] = offered();
  for (const name of first) addSwitch(name, find("#first"));
  for (const name of rest) addSwitch(name, find("#rest"));
  const open = (all) => {
    find("#rest").hidden = !all;
    find("#more").setAttribute("aria-expanded", String(all));
    say(find("#more"), () => message(all ? "action.less" : "action.more"));
  };
  find("#more").hidden = !rest.length;
  find("#more").addEventListener("click", () => open(find("#rest").hidden));
  open(rest.some((name) => choice.has(name)));
  find("#balance").hidden = find("#switches").hidden = !config.attributes.length;

  weight.max = String(config.weightMax);
  weight.value = String(visit.results.weight);
  const balance = () => message("refine.balance", { percent: Math.round(100 * Number(weight.value)) });
  say(weight, balance, "aria-valuetext");
  let timer = null; // while the slider may still move
  const settle = () => {
    clearTimeout(timer);
    timer = null;
    ask();
  };
  weight.addEventListener("input", () => {
    say(weight, balance, "aria-valuetext");
    clearTimeout(timer);
    timer = setTimeout(settle, SETTLE);
  });

  find("#clear").addEventListener("click", () => {
    choice.clear();
    ask();
    find("#done").focus();
  });
  find("#done").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside the sheet
  });
  dialog.addEventListener("close", () => {
    if (timer !== null) settle();
    dialog.remove();
    opener?.focus();
  });
  tell();
  document.getElementById("main").append(dialog);
  dialog.showModal();
}
