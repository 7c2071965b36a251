// A zone for pictures: chosen in a dialog, dropped or pasted; with their thumbnails, names and the progress of their upload.
import { button, icon, list, load, make, setText } from "./dom.js";
import { limits } from "./store.js";
import { bytes, percent, t } from "./texts.js";

const FOLDED = 8; // of more pictures, only so many are shown at first

/** Whether a picture may be out of sight: nothing is wrong with it. */
const calm = (item) => item.state !== "failed" && !item.problem;

/** {element, problems(list), show()}: the zone and list of a tray with contents. named: with fields for names. */
export function pictureZone({ tray, id, named = true, onchange = () => {} }) {
  const input = make("input", { type: "file", id, multiple: true, class: "unseen", on: { change: () => { tray.add([...input.files]); input.value = ""; } } });
  limits().then((known) => { input.accept = ["image/*", ...known.suffixes].join(); }, () => {});
  const zone = make("label", { class: "zone", for: id }, icon("upload"),
    make("span", { class: "zone-text" }, make("b", {}, t("upload.choose")), make("small", { class: "help" }, t("upload.hint"))));
  const items = make("ul", { class: "pictures" });
  let whole = false;
  const count = make("b", {});
  const fold = button("", { kind: "quiet small", on: () => { whole = !whole; show(); } }); fold.append(make("span"));
  const clear = button(t("upload.remove_all"), { kind: "quiet small", on: () => { for (const item of [...tray.items]) tray.drop(item); input.focus(); } });
  const many = make("div", { class: "pictures-many" }, count, fold, clear);
  const refused = make("ul", { class: "refused" });
  const element = make("div", { class: "picture-zone" }, input, zone, make("div", { role: "alert" }, refused), many, items);

  function show() {
    list(items, tray.kept, (item) => item.id, (item) => pictureCard(tray, item, { named, onchange }), updateCard);
    items.hidden = !tray.kept.length;
    const folds = tray.kept.length > FOLDED, hidden = folds && !whole ? tray.kept.slice(FOLDED).filter(calm) : [];
    for (const element of items.children) element.hidden = hidden.some((item) => String(item.id) === element.dataset.key);
    many.hidden = tray.kept.length < 2;
    setText(count, tray.busy ? t("upload.so_far", { done: tray.done.length, count: tray.kept.length }) : t("paint.pictures", { count: tray.kept.length }));
    fold.hidden = !folds;
    setText(fold.lastChild, t(whole ? "upload.show_fewer" : "upload.show_all"));
    fold.setAttribute("aria-expanded", String(whole));
    zone.classList.toggle("small", tray.kept.length > 0);
    setText(zone.querySelector("b"), t(tray.kept.length ? "upload.more" : "upload.choose"));
    list(refused, tray.items.filter((item) => item.state === "refused"), (item) => item.id, (item) => make("li", {},
      icon("warning"), make("span", { class: "name" }, make("b", {}, item.label), ` ${item.error}`),
      button("", { icon: "close", label: t("upload.dismiss", { name: item.label }), kind: "quiet", on: () => tray.drop(item) })));
  }

  /** Show each problem of a content at its picture. Returns the others. */
  function problems(list) {
    const at = new Map(), others = [];
    for (const problem of list) {
      const [kind, which] = problem.field.split(".");
      if (kind === "contents" && tray.done[which]) at.set(tray.done[which], problem.error);
      else others.push(problem);
    }
    for (const item of tray.items) item.problem = at.get(item) || "";
    show();
    return others;
  }

  show();
  return { element, problems, show };
}

/** An item of a tray as `li`. named: with a field for the name of the result; onchange(): after the name has changed. */
export function pictureCard(tray, item, { named = false, onchange = () => {} } = {}) {
  const name = make("input", { type: "text", value: item.name, placeholder: stem(item.label), title: item.label, maxLength: 200, "aria-label": t("upload.name_of", { name: item.label }), autocomplete: "off", on: {
    input: () => { item.name = name.value; onchange(); } } });
  return make("li", { class: "picture" },
    make("div", { class: "face" }),
    make("progress", { max: 1, "aria-label": t("upload.progress_of", { name: item.label }) }),
    button("", { icon: "close", label: t("upload.remove", { name: item.label }), kind: "overlay", on: () => tray.drop(item) }),
    make("div", { class: "picture-text" }, named ? name : make("span", { class: "name cut", title: item.label }, item.label), make("small", { class: "help facts" }), make("p", { class: "problem" })),
    button(t("upload.again"), { icon: "retry", kind: "again", on: () => tray.retry(item) }));
}

/** Show the present state of an item in its card. */
export function updateCard(element, item) {
  const part = (css) => element.querySelector(css);
  element.dataset.state = item.state;
  showFace(part(".face"), item);
  const bar = part("progress");
  bar.hidden = item.state !== "sending" && item.state !== "waiting";
  bar.value = item.part;
  part(".again").hidden = item.state !== "failed";
  setText(part(".problem"), item.error || item.problem);
  setText(part(".facts"), item.kept ? t("areas.kept") : item.state === "done" ? `${item.info.width} × ${item.info.height} · ${bytes(item.info.bytes)}`
    : item.state === "sending" ? t("upload.sent", { part: percent(item.part), size: bytes(item.file.size) })
      : item.state === "waiting" ? t("upload.waits") : "");
}

/** The thumbnail: of the file if the browser can show it, and of the server when it has the file. */
export function showFace(face, item) {
  const source = item.thumbnail;
  if (face.dataset.source === source) return;
  face.dataset.source = source;
  if (!source) return face.replaceChildren(icon("results"));
  if (!face.querySelector("img")) face.replaceChildren(icon("results"));
  const image = make("img", { alt: "", decoding: "async" });
  image.addEventListener("load", () => { if (face.dataset.source === source) face.replaceChildren(image); });
  load(image, source);
}

/** A file's name without its suffix. */
export const stem = (name) => name.replace(/(.)\.[^.]*$/, "$1");
