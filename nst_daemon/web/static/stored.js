// What the browser remembers of a visitor's choices. Without storage, which may be forbidden, they last until the page is closed.

/** The remembered value of a key. */
export function stored(key, otherwise) {
  try { return JSON.parse(localStorage.getItem(`nst-daemon-${key}`)) ?? otherwise; } catch { return otherwise; }
}

/** Remember a value that can be written as JSON. */
export function keep(key, value) {
  try { localStorage.setItem(`nst-daemon-${key}`, JSON.stringify(value)); } catch { /* see above */ }
}
