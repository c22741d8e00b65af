// The pictures of a visitor that the page holds: kept in one place, so that forgetting them cannot miss one.

const addresses = new Map(); // name → object URL

/** Keep a picture under a name, instead of any other of that name; returns its address. */
export function keep(name, blob) {
  drop(name);
  const address = URL.createObjectURL(blob);
  addresses.set(name, address);
  return address;
}

export const kept = (name) => addresses.get(name);

export function drop(name) {
  if (addresses.has(name)) URL.revokeObjectURL(addresses.get(name));
  addresses.delete(name);
}

export function dropAll() {
  for (const name of [...addresses.keys()]) drop(name);
}
