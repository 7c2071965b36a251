// The address of what is shown, as an entry of the browser's history. The router (app.js) shows it after `hashchange`.

/** Note in a new entry whether Back stays in the page. first: the page has just been loaded. */
export function enter(first) {
  if (history.state === null) history.replaceState({ inside: !first }, "");
}

/** The hash of a view, such as "jobs", with those parameters that have a value. */
export function hashOf(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return `#/${path}${query.size ? `?${query}` : ""}`;
}

/** Give the current entry another address, which the view shows already. Returns whether that was possible. */
export function keepAddress(hash) {
  try {
    history.replaceState(history.state, "", hash);
    return true;
  } catch {
    return false; // Safari allows 100 changes in 10 seconds
  }
}

/** Give the current entry another address, and show it. */
export function replaceAddress(hash) {
  if (keepAddress(hash)) dispatchEvent(new HashChangeEvent("hashchange"));
}

/** Leave what is shown: go back if that stays in the page, otherwise show `hash` instead. */
export function leaveTo(hash) {
  if (history.state?.inside) history.back();
  else replaceAddress(hash);
}
