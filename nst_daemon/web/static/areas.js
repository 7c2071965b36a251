// Masks: which area of a picture is painted like which area of a style. A closed part of a form.
import { draw, icon, list, make, setText } from "./dom.js";
import { acceptDrops } from "./dropping.js";
import { pictureCard, showFace, stem, updateCard } from "./pictures.js";
import { limits } from "./store.js";
import { t } from "./texts.js";

const MOST_TARGETS = 4; // more do not fit into the window while a file is dragged over it

/**
 * {element, show(), mask(item), styles(), missing(), problems(list), targets()}.
 *
 * masks: a Tray; `of` of its items is the id of the content or style that a mask belongs to. contents, styles: the other Trays.
 * picker: the style picker. Call `show()` after each change of these.
 */
export function areas({ masks, id, contents, styles, picker }) {
  const found = make("ul", { class: "areas-list" });
  const none = make("p", { class: "help" }, t("areas.none"));
  const number = make("span", { class: "badge", hidden: true });
  const element = make("details", { class: "areas" },
    make("summary", {}, icon("down"), t("areas.title"), number),
    make("div", { class: "areas-help" }, example(), make("div", {}, make("p", {}, t("areas.help")), make("ul", {}, make("li", {}, t("areas.both")), make("li", {}, t("areas.only_styles"))), make("p", {}, t("areas.rules")))),
    none, found);
  let wrong = new Map(), shown = [];

  const maskOf = (item) => item && masks.items.findLast((mask) => mask.of === item.id);

  /** The pictures that a mask can belong to, in the order of the form. Styles of the library have no `item`. */
  function rows() {
    const pictures = contents.kept.map((item) => ({ key: `content:${item.id}`, name: item.name || stem(item.label), item, kind: t("paint.content") }));
    return [...pictures, ...picker.picked().map(({ key, name, item, src }) => ({ key, name, item, src, kind: t("paint.styles") }))];
  }

  const used = () => shown.some(({ item }) => maskOf(item));

  function show() {
    const owners = new Set([...contents.items, ...styles.items].map((item) => item.id));
    for (const mask of [...masks.items]) if (!owners.has(mask.of) && masks.items.includes(mask)) masks.drop(mask);
    shown = rows();
    list(found, shown, (row) => row.key, build, update);
    none.hidden = shown.length > 0;
    const count = shown.filter(({ item }) => maskOf(item)).length;
    number.hidden = !count;
    setText(number, String(count));
    number.title = t("areas.count", { count });
  }

  function put(item, files) {
    if (!files.length) return;
    for (const old of masks.items.filter((mask) => mask.of === item.id)) masks.drop(old);
    wrong.delete(item.id);
    masks.add(files.slice(0, 1), { of: item.id });
  }

  function build({ key, name, item, src, kind }) {
    const face = make("span", { class: "face" });
    const text = make("div", { class: "area-text" }, make("b", { class: "name" }, name), make("small", { class: "help" }, kind));
    if (!item) {
      showFace(face, { thumbnail: src });
      text.append(make("p", { class: "help" }, t("areas.library")), make("p", { class: "problem" }));
      return make("li", { class: "area" }, face, text);
    }
    const field = `${id}-${key.replace(":", "-")}`;
    const input = make("input", { type: "file", id: field, class: "unseen", "aria-describedby": `${field}-problem`, on: { change: () => { put(item, [...input.files]); input.value = ""; } } });
    limits().then((known) => { input.accept = ["image/*", ...known.suffixes].join(); }, () => {});
    text.append(input, make("label", { class: "button small", for: field }, icon("plus"), make("span", {})), make("p", { class: "problem", id: `${field}-problem` }));
    return acceptDrops(make("li", { class: "area" }, face, text, make("ul", { class: "area-mask" })), (files) => put(item, files));
  }

  function update(element, { name, item }) {
    const problem = element.querySelector(".area-text .problem");
    if (!item) return setText(problem, used() ? wrong.get(element.dataset.key) || "" : "");
    showFace(element.querySelector(".face"), item);
    const mask = maskOf(item), input = element.querySelector("input");
    list(element.querySelector(".area-mask"), mask ? [mask] : [], (one) => one.id, (one) => pictureCard(masks, one), updateCard);
    const said = t(mask ? "areas.replace" : "areas.add");
    setText(element.querySelector("label span"), said);
    setText(element.querySelector(".name"), item.name || name);
    input.setAttribute("aria-label", `${said}: ${name}`);
    setText(problem, wrong.get(item.id) || "");
    if (problem.textContent) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }

  if (masks.items.length) element.open = true;
  show();
  return {
    element, show,
    /** The mask of a content or style for a request: the id of an upload, or the number of an input of an earlier job; undefined without one. */
    mask: (item) => maskOf(item)?.reference,
    /** The chosen styles for a request, with their masks. */
    styles: () => picker.picked().filter((one) => one.ref).map(({ ref, item }) => {
      const mask = maskOf(item)?.reference;
      return mask === undefined ? ref : { ...ref, mask };
    }),
    /** What prevents that the masks are used, or "". */
    missing() {
      const items = shown.map(({ item }) => maskOf(item)).filter(Boolean);
      if (items.some((mask) => mask.state === "failed" || mask.state === "refused")) return t("areas.failed");
      return items.some((mask) => mask.state !== "done") ? t("upload.unfinished") : "";
    },
    /** Show the problems of masks at their pictures. Returns the others. */
    problems(problems) {
      const left = [], picked = picker.picked();
      wrong = new Map();
      for (const problem of problems) {
        const [, part, which, key] = /^(contents|styles)\.(\d+)\.(\w+)$/.exec(problem.field.replace(/^content_mask$/, "contents.0.mask")) || [];
        const row = part === "styles" ? picked[which] : part && { item: contents.done[which] };
        if (row?.item && key === "mask") wrong.set(row.item.id, problem.error);
        else if (row?.key && key === "library" && used() && /\bmask\b/.test(problem.error)) wrong.set(row.key, problem.error);
        else left.push(problem);
      }
      if (wrong.size) element.open = true;
      show();
      return left;
    },
    /** Where dropped files can become masks: targets of dropping.js. */
    targets: () => !element.open ? [] : shown.filter(({ item }) => item).slice(0, MOST_TARGETS).map(({ name, item }) => ({ text: t("areas.drop", { name }), take: (files) => put(item, files) })),
  };
}

/** A picture and its mask, as small drawings. */
function example() {
  const shape = (tag, attributes) => draw(tag, attributes);
  const drawing = (css, ...shapes) => draw("svg", { viewBox: "0 0 60 45", class: css, "aria-hidden": "true", focusable: "false" }, ...shapes);
  const hills = "M0 45V30L14 18 26 29 40 12 60 32V45Z";
  return make("div", { class: "areas-example" },
    drawing("areas-photo", shape("rect", { width: 60, height: 45, class: "sky" }), shape("circle", { cx: 47, cy: 10, r: 5, class: "sun" }), shape("path", { d: hills, class: "hills" })),
    drawing("areas-mask", shape("rect", { width: 60, height: 45, class: "one" }), shape("path", { d: hills, class: "other" })));
}
