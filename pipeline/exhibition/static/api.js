// The interface of the server; a visit's token lives in this page's memory alone.

import { csrf } from "./config.js";

const TRIES = 4;

/** A refusal of the server, or its silence (code "network"). */
export class Refusal extends Error {
  constructor(code, text = "", status = 0) {
    super(text || code);
    this.code = code;
    this.status = status;
  }
}

let visit = null;
let heard = 0;

export const visiting = () => visit !== null;
/** Milliseconds since the server has heard of this visit. */
export const silence = () => Date.now() - heard;

export async function begin() {
  visit = (await ask("POST", "", { consent: true })).visit;
}

/** Have the server forget everything; it is forgotten here whatever the server answers. */
export async function forget() {
  if (!visit) return;
  const token = visit;
  visit = null;
  try {
    const headers = { "X-CSRF-Token": csrf, "X-Visit": token };
    await fetch("/api/visit", { method: "DELETE", headers, keepalive: true });
  } catch {
    // The server forgets a visit that it does not hear of.
  }
}

/** The same for a page that is being left, which cannot wait. */
export function forgetOnLeaving() {
  if (!visit) return;
  navigator.sendBeacon("/api/visit/forget", JSON.stringify({ visit, csrf }));
  visit = null;
}

export const status = () => ask("GET", "");
export const sendPhoto = (photo) => ask("PUT", "/photo", photo);
export const chooseFace = (face) => ask("POST", "/face", { face });
export const choose = (settings) => ask("PUT", "/settings", settings);
export const judge = (like, unlike) => ask("POST", "/judgements", { like, unlike });
export const restart = () => ask("POST", "/restart", {});
export const explain = (face) => ask("POST", "/explanation", { face });
export const explanation = (face) => ask("GET", `/explanation?face=${encodeURIComponent(face)}`);
/** Return photograph ("photo") or painting ("painting") of an explanation, a Blob. */
export const explained = (face, side) => ask("GET", `/explanation/${side}.png?face=${encodeURIComponent(face)}`);

async function ask(method, path, body) {
  const token = visit;
  for (let attempt = 1; ; attempt += 1) {
    const response = await send(method, path, body, token);
    if (visit !== token) throw new Refusal("left"); // this visit ended meanwhile: nobody wants the answer
    if (response.ok) {
      heard = Date.now();
      if (response.status === 204) return null;
      const json = response.headers.get("Content-Type")?.startsWith("application/json");
      return json ? response.json() : response.blob();
    }
    const refusal = await refusalOf(response);
    const wait = Number(response.headers.get("Retry-After"));
    if (response.status !== 429 || !(wait > 0) || attempt === TRIES) throw refusal;
    await pause(Math.min(wait, 5) * 1000);
    if (visit !== token) throw new Refusal("left");
  }
}

async function send(method, path, body, token) {
  const headers = { "X-CSRF-Token": csrf };
  if (token) headers["X-Visit"] = token;
  if (body instanceof Blob) headers["Content-Type"] = body.type || "image/unknown";
  else if (body !== undefined) headers["Content-Type"] = "application/json";
  const payload = body instanceof Blob || body === undefined ? body : JSON.stringify(body);
  try {
    return await fetch(`/api/visit${path}`, { method, headers, body: payload, cache: "no-store" });
  } catch {
    throw new Refusal(visit === token ? "network" : "left");
  }
}

async function refusalOf(response) {
  try {
    const { error } = await response.json();
    return new Refusal(error.code, error.message, response.status);
  } catch {
    return new Refusal("unexpected", "", response.status);
  }
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
