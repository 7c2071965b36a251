// The form for a new batch: contents × styles × values of settings.
import { post } from "./api.js";
import { checker, onlyByButton, sendForm } from "./checker.js";
import { announce, button, icon, make, redraw, setText } from "./dom.js";
import { draft } from "./draft.js";
import { setTargets } from "./dropping.js";
import { estimateText } from "./paint.js";
import { pictureZone } from "./pictures.js";
import { readValue } from "./setting_values.js";
import { choiceText, help, label, settingsForm } from "./settings_form.js";
import { stylePicker } from "./style_picker.js";
import { stamp, t } from "./texts.js";
import { Tray } from "./uploads.js";

// What a visitor has entered stays while another view is shown.
const contents = new Tray((known) => known.max_contents);
const styles = new Tray((known) => known.max_contents);
const chosen = new Set();
const written = { name: "", settings: {}, sweeps: [] };
draft("batch", { trays: { contents, styles }, chosen, written });
/** Settings that are swept most often come first. */
const COMMON = ["style_scale", "content_weight", "preset", "seed", "size", "keep_colors"];

export function batchForm(info, known) {
  const zone = pictureZone({ tray: contents, id: "batch-contents", named: false });
  const picker = stylePicker({ tray: styles, id: "batch-styles", several: "each", chosen, onchange: changed });
  const form = settingsForm({ info, values: written.settings, onchange: changed, id: "batch-settings" });
  const sweeps = sweepList(info, written.sweeps, changed);
  written.name ||= t("batches.name_of", { time: stamp() });
  const name = make("input", { type: "text", id: "batch-name", value: written.name, maxLength: 200, required: true, autocomplete: "off", "aria-describedby": "batch-name-problem", on: { input: changed } });
  const nameProblem = make("p", { class: "problem", id: "batch-name-problem" });
  const contentProblem = make("p", { class: "problem" });
  const general = make("ul", { class: "problem-list" });
  const product = make("p", { class: "product" }), estimate = make("p", { class: "help estimate" });
  const send = make("button", { class: "button primary large", type: "submit" }, icon("batches"), make("span", {}, t("batches.send")));
  const part = (heading, ...children) => make("section", { class: "card part", "aria-label": heading }, make("h2", {}, heading), ...children);
  const element = make("form", { class: "batch-form", noValidate: true, on: { submit, keydown: onlyByButton } },
    part(t("batches.name"), make("label", { class: "unseen", for: name.id }, t("batches.name")), name, nameProblem),
    part(t("paint.contents"), zone.element, contentProblem),
    part(t("styles.title"), picker.element, make("p", { class: "help" }, t("areas.not_in_batches"))),
    part(t("batches.sweeps"), make("p", { class: "help" }, t("batches.sweeps_help")), sweeps.element),
    part(t("batches.settings"), form.element),
    make("div", { class: "submit card" }, make("div", { class: "alert", role: "alert" }, general), make("div", {}, product, estimate), send));
  const ends = [contents.subscribe(() => { zone.show(); changed(); }), styles.subscribe(() => { picker.show(); changed(); })];
  setTargets([
    { text: t("upload.drop_contents"), take: (files) => contents.add(files) },
    { text: t("upload.drop_styles"), take: (files) => picker.add(files) },
  ]);

  const body = () => ({ name: name.value.trim(), contents: contents.done.map((item) => ({ upload: item.info.id })), styles: picker.refs(), settings: form.values(), sweep: sweeps.values() });

  function changed() {
    Object.assign(written, { name: name.value, settings: form.values() });
    const values = Object.values(sweeps.values());
    const factors = [t("batches.contents", { count: contents.kept.length }), t("batches.styles", { count: chosen.size }), ...(values.length ? [t("batches.combinations", { count: values.reduce((all, one) => all * one.length, 1) })] : [])];
    setText(product, factors.join(" × "));
    if (contents.kept.length) setText(contentProblem, "");
    checks.changed();
  }

  const checks = checker({
    path: "/batches/check",
    body: () => contents.done.length && picker.refs().length && name.value.trim() ? body() : null,
    answered(result) {
      show(result?.problems || []);
      setText(estimate, contents.busy || styles.busy ? t("upload.unfinished") : result?.estimate?.pictures && !result.problems.length ? estimateText(result.estimate) : "");
    },
  });

  /** Show each problem where it belongs. */
  function show(problems) {
    const left = picker.problems(zone.problems(sweeps.problems(form.problems(problems))));
    const ofName = left.filter((problem) => problem.field === "name"), others = left.filter((problem) => !ofName.includes(problem)).map((problem) => problem.error);
    setText(nameProblem, ofName[0]?.error || "");
    if (ofName.length) name.setAttribute("aria-invalid", "true");
    else name.removeAttribute("aria-invalid");
    redraw(general, others, () => others.map((text) => make("li", { class: "problem" }, text))); // read aloud only if it is new
  }

  async function submit(event) {
    event.preventDefault();
    checks.stop();
    if (!name.value.trim()) {
      show([{ error: t("batches.no_name"), field: "name" }]);
      return name.focus();
    }
    setText(contentProblem, contents.kept.length ? "" : t("paint.no_contents"));
    if (!contents.kept.length) return document.getElementById("batch-contents").focus();
    picker.problem(picker.missing());
    if (picker.missing()) return element.querySelector(".styles input").focus();
    if (contents.busy) return setText(estimate, t("upload.unfinished"));
    if (sweeps.missing()) return sweeps.missing().focus();
    await sendForm(element, send, async () => {
      const batch = await post("/batches", body());
      contents.clear();
      styles.clear();
      Object.assign(written, { name: "", settings: {} });
      written.sweeps.length = 0;
      chosen.clear();
      location.hash = "#/batches";
      announce(t("batches.started", { name: batch.name }));
    }, show);
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

/** The swept settings: {element, values(), problems(list)}. rows: [{name, text, values}], which outlive the view. */
function sweepList(info, rows, changed) {
  const place = make("div", { class: "sweeps" });
  const sorted = [...info.settings].sort((one, other) => rank(one.name) - rank(other.name));
  const add = button(t("batches.sweep"), { icon: "plus", on: () => {
    const free = sorted.find((setting) => !rows.some((row) => row.name === setting.name));
    rows.push({ name: free.name, text: "", picked: [] });
    show();
    place.lastElementChild.querySelector("select").focus();
    changed();
  } });
  const element = make("div", {}, place, add);

  function show() {
    place.replaceChildren(...rows.map(sweepRow));
    free();
  }

  /** Each setting can be chosen once. */
  function free() {
    for (const select of place.querySelectorAll(".sweep-name select"))
      for (const option of select.options) option.disabled = option.value !== select.value && rows.some((row) => row.name === option.value);
  }

  function sweepRow(row) {
    const found = () => info.settings.find((one) => one.name === row.name);
    const names = make("select", { "aria-label": t("batches.swept"), on: { change: () => {
      Object.assign(row, { name: names.value, text: "", picked: [] });
      fill(); // the list itself stays: a person may be typing in it
      free();
      changed();
    } } }, ...sorted.map((one) => make("option", { value: one.name, selected: one.name === row.name }, label(one))));
    const drop = button("", { icon: "trash", label: t("batches.unsweep"), kind: "quiet", on: () => {
      rows.splice(rows.indexOf(row), 1);
      show();
      add.focus();
      changed();
    } });
    const rest = make("div", { class: "sweep-values" });
    const element = make("div", { class: "sweep" }, make("div", { class: "sweep-name" }, names, drop), rest);
    function fill() {
      const setting = found();
      element.dataset.setting = row.name;
      drop.setAttribute("aria-label", t("batches.unsweep", { name: label(setting) }));
      rest.replaceChildren(valuesOf(row, setting), make("p", { class: "help" }, help(setting)), make("p", { class: "problem", id: `sweep-${row.name}-problem` }));
      rest.querySelector("input").setAttribute("aria-describedby", `sweep-${row.name}-problem`);
    }
    fill();
    return element;
  }

  /** Boxes for the values of a choice; a text with all values for other settings. */
  function valuesOf(row, setting) {
    const offered = setting.name === "preset" ? info.presets.map((preset) => preset.name) : setting.kind === "boolean" ? ["true", "false"] : setting.kind === "choice" ? setting.choices : null;
    if (!offered) {
      const text = make("input", { type: "text", value: row.text, placeholder: t(many(setting) ? "batches.values_lists" : "batches.values_hint"), "aria-label": t("batches.values_of", { name: label(setting) }), autocomplete: "off", on: { input: () => { row.text = text.value; changed(); } } });
      return text;
    }
    return make("div", { class: "checks", role: "group", "aria-label": t("batches.values_of", { name: label(setting) }) }, ...offered.map((value) => {
      const box = make("input", { type: "checkbox", checked: row.picked.includes(value), on: { change: () => {
        row.picked = box.checked ? [...row.picked, value] : row.picked.filter((one) => one !== value);
        changed();
      } } });
      return make("label", { class: "check" }, box, setting.kind === "boolean" ? t(value === "true" ? "settings.yes" : "settings.no") : choiceText(setting, value));
    }));
  }

  show();
  return {
    element,
    values() {
      const found = {};
      for (const row of rows) {
        const setting = info.settings.find((one) => one.name === row.name);
        const values = row.picked.length ? row.picked.map((value) => setting.kind === "boolean" ? value === "true" : value)
          : row.text.split(many(setting) || row.text.includes(";") ? /\s*;\s*/ : /[;,\s]+/).filter(Boolean).map((text) => readValue(setting, text));
        if (values.length) found[row.name] = values;
      }
      return found;
    },
    /** The field of a setting that has no values, which then says so. */
    missing() {
      const known = this.values(), row = [...place.children].find((one) => !(one.dataset.setting in known));
      return row && complain(row, t("batches.no_values"));
    },
    problems(list) {
      const left = [];
      for (const row of place.children) complain(row, "");
      for (const problem of list) {
        const name = /^sweep\.(\w+)/.exec(problem.field)?.[1];
        const row = place.querySelector(`.sweep[data-setting="${name}"]`);
        if (row) complain(row, problem.error);
        else left.push(problem);
      }
      return left;
    },
  };
}

/** Show what is wrong with the values of a swept setting, or "". Returns its first field. */
function complain(row, text) {
  const field = row.querySelector("input");
  setText(row.querySelector(".problem"), text);
  if (text) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
  return field;
}

const rank = (name) => COMMON.includes(name) ? COMMON.indexOf(name) : COMMON.length;
/** Whether each value of a setting is itself a list, so that values are separated by ";" (others may be: 0,5; 1). */
const many = (setting) => ["list", "mapping"].includes(setting.kind);
