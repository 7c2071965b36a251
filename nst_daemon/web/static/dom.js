// Elements without HTML strings: names, contents of files and errors are set as text and never parsed.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `properties`: `class`, `data` (an object), `on` (event listeners), `aria-…` and other names with a dash and
 * `role`, `for` as attributes; everything else is a property of the element. Children that are null, false or "" are left out.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name.includes("-") || name === "role" || name === "for" || name === "list") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...present(children));
  return element;
}

const present = (children) => children.flat().filter((child) => child !== null && child !== undefined && child !== false && child !== "");

/** An SVG element. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set the text of an element if it has changed, so that a selection in it is kept. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const focusable = (place) => [...place.querySelectorAll("a[href], button, input, select, textarea, summary")].filter((one) => !one.disabled);
const nameOf = (element) => element.getAttribute("aria-label") || element.textContent;

/** Change what is in `place`, and keep the focus. If its element has gone, the one with the same name or place has it. */
function keepFocus(place, change) {
  const active = document.activeElement;
  if (!active || active === place || !place.contains(active)) return change();
  const name = nameOf(active), position = focusable(place).indexOf(active);
  change();
  if (document.activeElement === active) return;
  const now = focusable(place);
  const next = active.isConnected && !active.disabled ? active : now.find((one) => one.tagName === active.tagName && nameOf(one) === name) || now[Math.min(position, now.length - 1)];
  next?.focus({ preventScroll: true });
}

const drawn = new WeakMap();

/** Replace the children of `place` by those that `build()` returns, if `values` differ from the last call's. */
export function redraw(place, values, build) {
  const text = JSON.stringify(values);
  if (drawn.get(place) === text) return;
  drawn.set(place, text);
  const children = present([build()]);
  keepFocus(place, () => place.replaceChildren(...children));
}

/**
 * Show a list so that elements of items that stay are kept with their focus.
 * `key(item)`: a text; `build(item)`: a new element; `update(element, item)`: called for new and old elements.
 */
export function list(place, items, key, build, update = () => {}) {
  keepFocus(place, () => fill(place, items, key, build, update));
}

function fill(place, items, key, build, update) {
  const old = new Map([...place.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const name = String(key(item));
    const element = old.get(name) || build(item);
    element.dataset.key = name;
    old.delete(name);
    update(element, item);
    return element;
  });
  for (const gone of old.values()) gone.remove();
  wanted.forEach((element, number) => {
    if (place.children[number] !== element) place.insertBefore(element, place.children[number] || null);
  });
}

/** Of the items of a list, only the controls of one are in the order of the Tab key; a view moves to the others with arrow keys. */
export function rove(items, chosen) {
  for (const item of items)
    for (const part of item.querySelectorAll("a:not([aria-hidden]), button, input")) part.tabIndex = item === chosen ? 0 : -1;
}

const PICTURE_PAUSES = [1500, 6000]; // milliseconds until a picture is requested again

/** Load `src` into an image, and again after a while if that fails: the daemon may be moving the file. `failed()`: it cannot be loaded. */
export function load(image, src, failed = () => {}) {
  let tries = 0;
  image.addEventListener("error", () => {
    if (tries === PICTURE_PAUSES.length) return failed();
    image.classList.add("awaited");
    setTimeout(() => { image.src = src; }, PICTURE_PAUSES[tries++]);
  });
  image.addEventListener("load", () => image.classList.remove("awaited"));
  image.src = src;
}

/** A picture; without one (it cannot be loaded), an empty box of the same class. alt "": the text next to it says the same. */
export function picture(src, properties = {}) {
  const image = make("img", { alt: "", loading: "lazy", decoding: "async", ...properties });
  load(image, src, () => image.replaceWith(make("span", { class: `${image.className} missing`.replace("awaited ", ""), role: image.alt ? "img" : null, "aria-label": image.alt || null })));
  return image;
}

const ICONS = {
  paint: "M3 21c3 0 5-1 5-4a3 3 0 0 0-3-3c-2 0-3 2-2 4 0 1-1 2-2 3zM9 14 20 3l1 1-9 12",
  jobs: "M8 6h13M8 12h13M8 18h13M3.5 6h.01M3.5 12h.01M3.5 18h.01",
  results: "M4 4h16v16H4zM4 16l5-5 4 4 3-3 4 4M15.5 8.5h.01",
  batches: "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h6v6h-6z",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6 6 18",
  plus: "M12 5v14M5 12h14",
  upload: "M12 16V4M7 9l5-5 5 5M4 20h16",
  download: "M12 4v12M7 11l5 5 5-5M4 20h16",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  retry: "M4 12a8 8 0 1 1 2.5 5.8M4 19v-5h5",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l5 5",
  check: "M5 13l4 4L19 7",
  warning: "M12 4 2.5 20h19zM12 10v4M12 17h.01",
  back: "M15 5l-7 7 7 7",
  forward: "M9 5l7 7-7 7",
  down: "M6 9l6 6 6-6",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  clock: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 8v4l3 2",
  up: "M12 19V5M6 11l6-6 6 6",
  minus: "M5 12h14",
  compare: "M12 3v18M9 7H4v10h5M15 7h5v10h-5",
  info: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 11v5M12 8h.01",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  pixels: "M6 8l2-1v10M16 8l2-1v10M12 10h.01M12 14h.01",
  expand: "M14 4h6v6M20 4l-6 6M10 20H4v-6M4 20l6-6",
};

/** A decorative icon: the button that holds it needs a text or an `aria-label`. */
export function icon(name) {
  return draw("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" }, draw("path", { d: ICONS[name] }));
}

/** A button. `kind`: "primary", "quiet", "danger" or "". With `label` it shows only the icon. */
export function button(text, { icon: shape, label, kind = "", on, ...properties } = {}) {
  return make("button", { type: "button", class: `button ${kind} ${label ? "only-icon" : ""}`.trim(), "aria-label": label, title: label, on: on && { click: on }, ...properties }, shape && icon(shape), text && make("span", {}, text));
}

const TYPING = 300; // milliseconds without a key until a search begins

/** A field for searches. `search(text)` is called after a pause in typing. */
export function searchField({ id, value, label, search }) {
  let timer = 0;
  const begin = () => { if (field.isConnected) search(field.value.trim()); };
  const typed = () => { clearTimeout(timer); timer = setTimeout(begin, TYPING); };
  const field = make("input", { id, type: "search", value, placeholder: label, "aria-label": label, autocomplete: "off", on: { input: typed } });
  return field;
}

let live = null;
/** Read a text aloud. Only for what a person waits for: never for progress. */
export function announce(text) {
  if (!live) document.body.append(live = make("p", { class: "unseen", role: "status" }));
  live.textContent = "";
  setTimeout(() => { live.textContent = text; }, 50); // the same text again is read again
}

let toasts = null;
const TOAST_SECONDS = 8;
/** A short message in the corner; it is read aloud. `children`: text, or elements such as links. kind: "good" or "bad". */
export function toast(kind, ...children) {
  if (!toasts) document.body.append(toasts = make("div", { class: "toasts", role: "status" }));
  const note = make("div", { class: `toast ${kind}` }, make("span", {}, ...children));
  toasts.append(note);
  setTimeout(() => note.remove(), TOAST_SECONDS * 1000);
  return note;
}

/**
 * A modal dialog; the promise is fulfilled when it is closed: with true if `action` was pressed, else false.
 * Without `cancel` there is only one button. `accept()` may refuse: while it returns false (or a promise of it), the dialog stays open.
 */
export function ask({ title, body = [], action, cancel, kind = "primary", accept = () => true, wide = false }) {
  return new Promise((resolve) => {
    const heading = make("h2", { id: `ask-${Math.random().toString(36).slice(2)}` }, title);
    const yes = make("button", { class: `button ${kind}`, type: "submit" }, action);
    const no = cancel && button(cancel, { on: () => dialog.close() });
    let accepted = false;
    const form = make("form", { noValidate: true, on: {
      submit: async (event) => {
        event.preventDefault();
        yes.disabled = true;
        try { accepted = await accept() !== false; } finally { yes.disabled = false; }
        if (accepted) dialog.close();
        else if (!form.contains(document.activeElement)) (form.querySelector("[aria-invalid=true]") || yes).focus(); // a disabled button loses it
      } } }, heading, ...[body].flat(), make("div", { class: "buttons" }, no, yes));
    const dialog = make("dialog", { class: wide ? "wide" : "", "aria-labelledby": heading.id }, form);
    const leave = () => dialog.close();
    addEventListener("hashchange", leave); // Back: what it asks about is not shown any more
    dialog.addEventListener("close", () => {
      removeEventListener("hashchange", leave);
      dialog.remove();
      resolve(accepted);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
