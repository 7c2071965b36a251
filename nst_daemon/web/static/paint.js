// The view for new pictures: contents, styles, settings, and what is being painted now.
import { post } from "./api.js";
import { areas } from "./areas.js";
import { checker, onlyByButton, sendForm } from "./checker.js";
import { button, icon, make, redraw, setText } from "./dom.js";
import { draft } from "./draft.js";
import { resetTargets, setTargets } from "./dropping.js";
import { nowPainting } from "./now.js";
import { pictureZone } from "./pictures.js";
import { settingsForm } from "./settings_form.js";
import { limits, mayChange, settings } from "./store.js";
import { stylePicker } from "./style_picker.js";
import { duration, t } from "./texts.js";
import { Tray } from "./uploads.js";

// What a visitor has entered stays while another view is shown.
const contents = new Tray((known) => known.max_contents);
const styles = new Tray((known) => known.max_style_pictures);
const masks = new Tray((known) => known.max_contents + known.max_style_pictures);
const chosen = new Set();
const written = { settings: {}, priority: 0 };
draft("paint", { trays: { contents, styles, masks }, chosen, written });
let end = () => {};

export const title = () => t("paint.title");

const targets = [
  { text: t("upload.drop_contents"), take: (files) => arrive(() => contents.add(files)) },
  { text: t("upload.drop_styles"), take: (files) => arrive(() => shownPicker ? shownPicker.add(files) : styles.add(files)) },
];
setTargets(targets, { forAllViews: true });
let shownPicker = null;

/** Files that were dropped in another view belong to this one. */
function arrive(add) {
  if (!mayChange()) return;
  add();
  if (location.hash.replace(/^#\/?/, "")) location.hash = "#/";
}

export async function show(place) {
  const now = nowPainting();
  const left = make("div", { class: "paint-form" });
  place.append(make("h1", {}, title()), make("div", { class: "paint" }, left, now.element));
  const ends = [now.end];
  end = () => ends.splice(0).forEach((one) => one());
  if (!mayChange()) return left.append(make("p", { class: "empty" }, t("frame.read_only")));
  const [info, known] = await Promise.all([settings(), limits()]);
  const form = paintForm(info, known);
  left.append(form.element);
  ends.push(form.end);
}

export function leave() {
  shownPicker = null;
  resetTargets();
  end();
}

function paintForm(info, known) {
  const zone = pictureZone({ tray: contents, id: "contents", onchange: changed });
  const picker = shownPicker = stylePicker({ tray: styles, id: "styles", several: "blend", chosen, onchange: changed });
  const regions = areas({ masks, id: "areas", contents, styles, picker });
  regions.element.addEventListener("toggle", dropTargets);
  const form = settingsForm({ info, values: written.settings, onchange: changed });
  const priority = make("input", { type: "number", id: "priority", value: written.priority, min: -known.max_priority, max: known.max_priority, step: 1, "aria-describedby": "priority-help priority-problem", on: { input: changed } });
  const priorityProblem = make("p", { class: "problem", id: "priority-problem" });
  const contentProblem = make("p", { class: "problem", id: "contents-problem" });
  const general = make("ul", { class: "problem-list" });
  const estimate = make("p", { class: "help estimate" });
  const send = make("button", { class: "button primary large", type: "submit" }, icon("paint"), make("span", {}, t("paint.send")));
  const confirmation = make("div", { class: "confirmation", role: "status", tabIndex: -1 });
  const element = make("form", { noValidate: true, on: { submit, keydown: onlyByButton } },
    confirmation,
    part("1", t("paint.contents"), zone.element, contentProblem),
    part("2", t("paint.styles"), picker.element, regions.element),
    part("3", t("settings.title"), form.element,
      make("details", { class: "priority", open: written.priority !== 0 }, make("summary", {}, icon("down"), t("paint.priority")),
        make("div", { class: "setting" }, make("label", { for: "priority", class: "unseen" }, t("paint.priority")), priority, make("p", { class: "help", id: "priority-help" }, t("paint.priority_help", { limit: known.max_priority })), priorityProblem))),
    make("div", { class: "submit card" }, make("div", { class: "alert", role: "alert" }, general), estimate, send));
  const ends = [contents.subscribe(() => { zone.show(); changed(); }), styles.subscribe(() => { picker.show(); changed(); }), masks.subscribe(changed)];

  const body = () => ({
    contents: contents.done.map((item) => ({ upload: item.info.id, name: item.name.trim(), mask: regions.mask(item) })),
    styles: regions.styles(),
    settings: form.values(),
    priority: Number(priority.value) || 0,
  });

  /** Ask the server, when the form has not changed for a moment, whether it would accept it. */
  function changed() {
    Object.assign(written, { settings: form.values(), priority: Number(priority.value) || 0 });
    if (contents.kept.length) setText(contentProblem, "");
    regions.show();
    dropTargets();
    checks.changed();
  }

  function dropTargets() {
    setTargets([...targets, ...regions.targets()]);
  }

  const checks = checker({
    path: "/jobs/check",
    body: () => contents.done.length && !picker.missing() && !regions.missing() ? body() : null,
    answered(result) {
      show(result?.problems || []);
      setText(estimate, contents.busy || masks.busy ? t("upload.unfinished") : result?.estimate?.pictures && !result.problems.length ? estimateText(result.estimate) : "");
    },
  });

  /** Show each problem where it belongs. */
  function show(problems) {
    const left = picker.problems(zone.problems(regions.problems(form.problems(problems))));
    const ofPriority = left.filter((problem) => problem.field === "priority"), others = left.filter((problem) => !ofPriority.includes(problem)).map((problem) => problem.error);
    setText(priorityProblem, ofPriority[0]?.error || "");
    redraw(general, others, () => others.map((text) => make("li", { class: "problem" }, text))); // read aloud only if it is new
  }

  async function submit(event) {
    event.preventDefault();
    checks.stop();
    const missing = contents.kept.length ? "" : t("paint.no_contents");
    setText(contentProblem, missing);
    if (missing) return document.getElementById("contents").focus();
    if (contents.items.some((item) => item.state === "failed")) return element.querySelector(".picture[data-state=failed] .again")?.focus();
    if (contents.busy) return setText(estimate, t("upload.unfinished"));
    picker.problem(picker.missing());
    if (picker.missing()) return element.querySelector(".styles input").focus();
    if (regions.missing()) return setText(estimate, regions.missing());
    await sendForm(element, send, async () => {
      const { jobs } = await post("/jobs", body());
      confirm(jobs);
      contents.clear();
      masks.clear(); // that of a style would now be laid over the next picture
      show([]);
      setText(estimate, "");
    }, show);
  }

  function confirm(jobs) {
    const links = jobs.slice(0, 5).map((job) => make("a", { href: `#/jobs/${job.id}`, class: "name" }, job.name));
    const rest = jobs.length - links.length;
    confirmation.replaceChildren(icon("check"), make("div", {},
      make("b", {}, t("paint.sent", { count: jobs.length })), make("p", { class: "links" }, ...links, rest > 0 && make("a", { href: "#/jobs" }, t("now.more", { count: rest })))),
      button("", { icon: "close", label: t("frame.close"), kind: "quiet", on: () => confirmation.replaceChildren() }));
    confirmation.focus();
  }

  picker.loaded.then(changed);
  return {
    element,
    end() {
      checks.stop();
      ends.forEach((one) => one());
    },
  };
}

/** A numbered part of the form. */
const part = (number, heading, ...children) => {
  const title = make("h2", { id: `part-${number}` }, make("span", { class: "step", "aria-hidden": "true" }, number), heading);
  return make("section", { class: "card part", "aria-labelledby": title.id }, title, ...children);
};

/** "3 pictures, about 4 minutes", from an Estimate. */
export const estimateText = (found) => [t("paint.pictures", { count: found.pictures }), found.seconds ? t("paint.about", { time: duration(found.seconds) }) : ""].filter(Boolean).join(" · ");
