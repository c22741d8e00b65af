// Yes and no to paintings: those given since the last round, and those that the server knows.

const fresh = new Map(); // face → "like" or "unlike"

export const clearVerdicts = () => fresh.clear();
export const freshCount = () => fresh.size;
export const verdictOf = (item) => fresh.get(item.face) ?? (item.liked ? "like" : item.unliked ? "unlike" : null);

/** Give a verdict, or take one back that the server has not heard of. */
export function give(item, verdict) {
  if (fresh.get(item.face) === verdict) fresh.delete(item.face);
  else if (verdictOf(item) !== verdict) fresh.set(item.face, verdict);
}

/** Return [liked, unliked] since the last round, ids of faces. */
export function freshVerdicts() {
  const of = (verdict) => [...fresh].filter(([, given]) => given === verdict).map(([face]) => face);
  return [of("like"), of("unlike")];
}

/** Show an item's verdict on its two buttons and around its picture. */
export function mark(item, yes, no, around) {
  const verdict = verdictOf(item);
  yes.setAttribute("aria-pressed", String(verdict === "like"));
  no.setAttribute("aria-pressed", String(verdict === "unlike"));
  around.dataset.verdict = verdict ?? "";
}
