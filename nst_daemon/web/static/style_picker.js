// Styles: of the library, or uploaded. One of them, several blended in each picture, or (in a batch) each by itself.
import { address, mayPass, post } from "./api.js";
import { announce, ask, button, icon, list, make, picture, setText } from "./dom.js";
import { acceptDrops } from "./dropping.js";
import { showFace, stem } from "./pictures.js";
import { AGAIN, forget, limits, styles } from "./store.js";
import { percent, t } from "./texts.js";

const SEARCH_FROM = 12; // styles

/**
 * {element, add(files), picked(), refs(), missing(), problem(text), problems(list), loaded, show()}. tray: uploaded styles. several: "blend" (a switch chooses between one and several) or
 * "each". The tray may have styles of an earlier job; one without `input` stands for all of them, and is not blended with others. chosen: a set of keys ("library:NAME", "upload:ID of an item") that outlives the view. onchange(): after each choice.
 */
export function stylePicker({ tray, id, several, chosen, onchange }) {
  let known = [], unread = "", standard = "", many = several === "each" || chosen.size > 1;
  const input = make("input", { type: "file", id: `${id}-file`, multiple: true, class: "unseen", "aria-label": t("styles.add"), on: { change: () => { add([...input.files]); input.value = ""; } } });
  const search = make("input", { type: "search", placeholder: t("styles.search"), "aria-label": t("styles.search"), hidden: true, autocomplete: "off", on: {
    input: () => show(),
    keydown: (event) => { if (event.key === "Enter") event.preventDefault(); }, // it must not submit the form around it
  } });
  const grid = acceptDrops(make("div", { class: "styles", role: "group", "aria-label": t("styles.title") }), (files) => add(files));
  const wrong = make("p", { class: "problem", id: `${id}-problem` });
  const blend = make("input", { type: "checkbox", checked: many, on: { change: () => {
    many = blend.checked;
    if (!many) for (const key of [...chosen].slice(0, -1)) chosen.delete(key);
    for (const tile of [...grid.children]) if (tile.dataset.key !== "add") tile.remove(); // the kind of their inputs changes
    show();
    onchange();
  } } });
  const unusable = make("details", { class: "unusable", hidden: true }, make("summary", {}, icon("down"), make("span", {})), make("ul", { class: "lines" }));
  const summary = make("p", { class: "help" });
  const element = make("div", { class: "style-picker" }, input, search, grid,
    make("div", { class: "style-foot" }, several === "blend" && make("label", { class: "check" }, blend, t("styles.blend")), summary), wrong, unusable);

  async function load() {
    let found, suffixes, usual;
    try {
      [found, { suffixes, default_style: usual }] = await Promise.all([styles(), limits()]);
    } catch (error) {
      unread = error.message;
      show();
      if (mayPass(error)) setTimeout(() => element.isConnected && load(), AGAIN);
      return;
    }
    unread = "";
    input.accept = ["image/*", ...suffixes].join();
    known = found;
    for (const key of [...chosen]) if (key.startsWith("library:") && !known.some((style) => key === `library:${style.name}` && !style.problem)) chosen.delete(key);
    standard = known.some((style) => style.name === usual && !style.problem) ? usual : "";
    if (!chosen.size && several === "blend" && standard) chosen.add(`library:${standard}`);
    show();
    onchange();
  }

  /** Uploaded styles are chosen at once. */
  async function add(files) {
    const added = (await tray.add(files)).filter((item) => item.state !== "refused");
    if (!many) chosen.clear();
    clearWhole();
    for (const item of many ? added : added.slice(0, 1)) chosen.add(`upload:${item.id}`);
    show();
    onchange();
  }

  const itemOf = (key) => tray.items.find((item) => `upload:${item.id}` === key);
  const whole = (key) => itemOf(key)?.kept && itemOf(key).input === null;
  const clearWhole = () => [...chosen].filter(whole).forEach((key) => chosen.delete(key));

  function choose(key, yes) {
    if (!many || whole(key)) chosen.clear();
    clearWhole();
    if (yes) chosen.add(key);
    else chosen.delete(key);
    show();
    onchange();
  }

  function show() {
    for (const key of [...chosen]) if (key.startsWith("upload:") && !tray.items.some((item) => `upload:${item.id}` === key && item.state !== "refused")) chosen.delete(key);
    search.hidden = known.length <= SEARCH_FROM;
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const bad = known.filter((style) => style.problem);
    unusable.hidden = !bad.length;
    setText(unusable.querySelector("span"), t("styles.unusable", { count: bad.length }));
    list(unusable.querySelector("ul"), bad, (style) => style.name, (style) => make("li", {}, make("b", { class: "name" }, style.name), make("small", { class: "help" })), (line, style) => setText(line.lastChild, style.problem));
    const found = known.filter((style) => !style.problem && (chosen.has(`library:${style.name}`) || words.every((word) => style.name.toLowerCase().includes(word))));
    const tiles = [{ key: "add" }, ...tray.items.map((item) => ({ key: `upload:${item.id}`, item })), ...found.map((style) => ({ key: `library:${style.name}`, style }))];
    list(grid, tiles, (tile) => tile.key, build, update);
    setText(summary, chosen.size > 1 ? t(several === "each" ? "styles.chosen" : "styles.blended", { count: chosen.size }) : unread ? unread : !known.length && !tray.items.length ? t("styles.none") : "");
  }

  function build({ key, item, style }) {
    if (key === "add") return make("label", { class: "style add", for: input.id }, make("span", { class: "face" }, icon("plus")), make("span", { class: "label" }, t("styles.upload")));
    const name = item ? stem(item.label) : style.name;
    const box = make("input", { type: many ? "checkbox" : "radio", name: `${id}-style`, class: "unseen", on: { change: () => choose(key, box.checked) } });
    const face = style ? picture(faceOf(style), { class: "face" }) : make("span", { class: "face" });
    return make("div", { class: "style" },
      make("label", { title: name }, box, face, make("span", { class: "tick" }, icon("check")), make("span", { class: "label name" }, name), item?.kept && item.input !== null && make("small", { class: "label help" }, t("areas.kept"))),
      item && make("progress", { max: 1, "aria-label": t("upload.progress_of", { name }) }),
      item && !item.kept && button("", { icon: "close", label: t("upload.remove", { name }), kind: "overlay", on: () => { tray.drop(item); chosen.delete(key); show(); onchange(); } }),
      item && button(t("styles.keep"), { kind: "keep small", on: () => keep(item) }),
      item && button(t("upload.again"), { icon: "retry", kind: "again small", on: () => tray.retry(item) }),
      make("p", { class: "problem" }));
  }

  function update(element, { key, item }) {
    if (key === "add") return;
    const box = element.querySelector("input");
    box.checked = chosen.has(key);
    if (!item) return;
    box.disabled = item.state === "refused";
    element.classList.toggle("refused", box.disabled);
    setText(element.querySelector(".problem"), item.error);
    showFace(element.querySelector(".face"), item);
    const bar = element.querySelector("progress");
    bar.hidden = !["waiting", "sending"].includes(item.state);
    bar.value = item.part;
    bar.title = percent(item.part);
    element.querySelector(".keep").hidden = !item.info;
    element.querySelector(".again").hidden = item.state !== "failed";
  }

  /** Ask for a name and put an uploaded style into the library. */
  async function keep(item) {
    const name = make("input", { type: "text", id: `${id}-keep`, value: stem(item.label), maxLength: 200, required: true, autocomplete: "off", "aria-describedby": `${id}-keep-problem` });
    const problem = make("p", { class: "problem", id: `${id}-keep-problem`, role: "alert" });
    await ask({
      title: t("styles.keep_title"), action: t("styles.keep"), cancel: t("frame.cancel"),
      body: [make("p", { class: "help" }, t("styles.keep_help")), make("label", { for: name.id }, t("styles.keep_name")), name, problem],
      async accept() {
        try {
          const style = await post("/styles", { name: name.value.trim(), uploads: [item.info.id] });
          forget("styles");
          const was = chosen.delete(`upload:${item.id}`);
          tray.drop(item);
          if (was) chosen.add(`library:${style.name}`);
          await load();
          announce(t("styles.kept", { name: style.name }));
          return true;
        } catch (error) {
          problem.textContent = error.message;
          name.focus();
          return false;
        }
      },
    });
  }

  const loaded = load();
  /** The chosen styles in their order: [{key, name, src, item, ref}]. item: not for those of the library. ref: as a request names it; null: not uploaded yet. */
  const picked = () => [...chosen].map((key) => {
    const item = itemOf(key), name = item ? stem(item.label) : key.slice(8);
    if (key.startsWith("library:")) return { key, name, src: faceOf(known.find((style) => style.name === name) || { name }), item: null, ref: { library: name } };
    return { key, name, item, src: item?.thumbnail, ref: item?.info ? { upload: item.info.id } : item?.input != null ? { input: item.input } : null };
  }).filter(({ key, item }) => !whole(key) && (item || key.startsWith("library:")));

  return {
    element, add, loaded, show, picked,
    /** The chosen styles as StyleRefs. */
    refs: () => picked().map(({ ref }) => ref).filter(Boolean),
    /** What prevents that the choice is used, or "". */
    missing() {
      const items = tray.items.filter((item) => chosen.has(`upload:${item.id}`));
      if (items.some((item) => item.state === "failed")) return t("styles.failed");
      if (items.some((item) => item.state !== "done")) return t("upload.unfinished");
      return chosen.size || (several === "blend" && standard) ? "" : t("styles.missing");
    },
    problem(text) { setText(wrong, text); },
    /** Show the problems of styles. Returns the others. */
    problems(list) {
      const ours = (problem) => problem.field.split(".")[0] === "styles";
      setText(wrong, list.filter(ours).map((problem) => problem.error).join(" "));
      return list.filter((problem) => !ours(problem));
    },
  };
}

const faceOf = (style) => address(`/styles/${encodeURIComponent(style.name)}/thumbnail`, { v: style.version });
