// A form for settings of a painting; the Paint view, batches, retry and "paint again" use it.
//
//   settingsForm({ info, values, onchange, id }) -> { element, values(), changes(), set(values), problems(list) }
//
// info: SettingsInfo (`settings()` of store.js). values: settings that are filled in at first, such as those of a job.
// onchange(): called after each change by the visitor. id: the prefix of the ids of the fields, if two forms are shown.
//
// element: append it to a form or a dialog. The main settings are in sight, the others below "All settings".
// values(): the settings that have a value, as `settings` of a Submission wants them: {name: value}.
// changes(): {set, unset}: how values() differs from the first `values`, as ActionRequest and Repeat want it.
// set(values): fill in other values, and begin changes() anew.
// problems(list): show each ErrorBody whose `field` is "settings.NAME" (or "set.NAME", "unset.NAME") at its field, and
//   remove earlier ones. Returns the ErrorBodies that belong to no field of the form.
import { button, icon, make, setText } from "./dom.js";
import { has, t } from "./texts.js";
import { readValue, writeValue } from "./setting_values.js";

/** The groups of the settings that are not main ones; others are in the last group. */
const GROUPS = {
  file: ["depth", "quality"],
  picture: ["style_weights", "keep_colors_when", "start", "noise_ratio", "noise_std"],
  objective: ["content_layers", "content_loss", "style_weight", "style_layers", "style_loss", "moments_weight", "style_levels", "style_level_weights",
    "content_level", "gram_norm", "content_style_ratio", "tv_weight", "tv", "calibrate"],
  course: ["scales", "coarsest", "iterations", "detail", "min_improvement"],
  optimizer: ["optimizer", "step", "step_decay", "betas", "averaging", "clamp", "history", "precondition"],
  network: ["pooling", "rescale_pooling", "padding", "precision", "deterministic"],
};
/** Settings with a slider: the ends of its logarithmic scale. The number beside it may be beyond them. */
const SLIDERS = { content_weight: [0.125, 8], style_scale: [0.25, 4] };
const SLIDER_STEPS = 60;
/** Values that are offered for a setting that takes numbers and words. */
const OFFERED = { size: [512, 768, 1024, 1536, 2048, 3072, 4096] };
const OTHER = "\u0000other";

export function settingsForm({ info, values = {}, onchange = () => {}, id = "settings" }) {
  let first = {};
  const fields = new Map();
  const changed = () => { showDefaults(); showNumber(); onchange(); };
  for (const setting of info.settings) fields.set(setting.name, settingField(setting, info, `${id}-${setting.name}`, changed));

  const main = info.settings.filter((setting) => setting.main).map((setting) => fields.get(setting.name));
  const others = info.settings.filter((setting) => !setting.main);
  const number = make("span", { class: "badge", hidden: true });
  const search = make("input", { type: "search", id: `${id}-search`, placeholder: t("settings.search"), "aria-label": t("settings.search"), autocomplete: "off", on: {
    input: () => filter(),
    keydown: (event) => { if (event.key === "Enter") event.preventDefault(); }, // it must not submit the form around it
  } });
  const nothing = make("p", { class: "help", hidden: true, role: "status" }, t("settings.nothing"));
  const groups = groupsOf(others).map(([name, settings]) => make("section", { class: "setting-group", "aria-label": t(`settings.group_${name}`) },
    make("h3", {}, t(`settings.group_${name}`)), make("div", { class: "setting-grid" }, ...settings.map((setting) => fields.get(setting.name).element))));
  const all = make("details", { class: "all-settings" },
    make("summary", {}, icon("down"), t("settings.all"), number), search, ...groups, nothing);
  const element = make("div", { class: "settings", id }, make("div", { class: "setting-grid" }, ...main.map((field) => field.element)), others.length > 0 && all);

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const setting of others) {
      const text = `${setting.name} ${setting.name.replaceAll("_", " ")} ${label(setting)} ${setting.help} ${setting.allowed}`.toLowerCase();
      const hit = words.every((word) => text.includes(word));
      fields.get(setting.name).element.hidden = !hit;
      found += hit;
    }
    for (const group of groups) group.hidden = !group.querySelector(".setting:not([hidden])");
    nothing.hidden = found > 0;
  }

  /** The defaults of the fields are those of the preset. */
  function showDefaults() {
    const chosen = fields.get("preset")?.value();
    const preset = info.presets.find((one) => one.name === chosen);
    for (const setting of info.settings) fields.get(setting.name).usual(preset && setting.name in preset.values ? preset.values[setting.name] : setting.default);
  }

  function showNumber() {
    const count = others.filter((setting) => fields.get(setting.name).value() !== undefined).length;
    number.hidden = !count;
    setText(number, String(count));
    number.title = t("settings.changed", { count });
  }

  function present() {
    const found = {};
    for (const [name, field] of fields) if (field.value() !== undefined) found[name] = field.value();
    return found;
  }

  function set(others) {
    for (const [name, field] of fields) field.set(others[name]);
    showDefaults();
    showNumber();
    first = present();
  }

  set(values);
  return {
    element,
    values: present,
    changes() {
      const now = present();
      return {
        set: Object.fromEntries(Object.entries(now).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(first[name]))),
        unset: Object.keys(first).filter((name) => !(name in now)),
      };
    },
    set,
    problems(list) {
      const left = [], at = new Map();
      for (const problem of list) {
        const name = /^(?:settings|set|unset)\.(\w+)/.exec(problem.field)?.[1];
        if (fields.has(name)) at.set(name, problem);
        else left.push(problem);
      }
      for (const [name, field] of fields) field.problem(at.get(name));
      if ([...at.keys()].some((name) => !info.settings.find((setting) => setting.name === name).main)) all.open = true;
      return left;
    },
  };
}

/** The name of a setting for people. */
export const label = (setting) => has(`settings.label_${setting.name}`) ? t(`settings.label_${setting.name}`) : capital(setting.name.replaceAll("_", " "));
const capital = (text) => text[0].toUpperCase() + text.slice(1);
/** What a setting does; the texts of the server are English. */
export const help = (setting) => has(`settings.help_${setting.name}`) ? t(`settings.help_${setting.name}`) : setting.help.replaceAll("`", "");
/** A value of a choice for people. */
export const choiceText = (setting, value) => has(`settings.choice_${setting.name}_${value}`) ? t(`settings.choice_${setting.name}_${value}`) : String(value);

function groupsOf(settings) {
  const named = new Set(Object.values(GROUPS).flat());
  const found = Object.entries(GROUPS).map(([name, members]) => [name, settings.filter((setting) => members.includes(setting.name))]);
  found.push(["other", settings.filter((setting) => !named.has(setting.name))]);
  return found.filter(([, members]) => members.length);
}

/** The field of a setting: {element, value(), set(value), usual(value), problem(error)}. A value of undefined: the default. */
function settingField(setting, info, id, changed) {
  const control = setting.kind === "boolean" || setting.kind === "choice" || setting.name === "preset" ? choiceControl(setting, info, id, changed)
    : setting.choices.length ? mixedControl(setting, id, changed)
      : textControl(setting, id, changed);
  const explained = make("p", { class: "help", id: `${id}-help` });
  const wrong = make("p", { class: "problem", id: `${id}-problem` });
  const reset = button("", { icon: "close", label: t("settings.reset", { name: label(setting) }), kind: "quiet small", on: () => { control.set(undefined); show(); changed(); control.focus.focus(); } });
  const element = make("div", { class: "setting", data: { setting: setting.name } },
    make("div", { class: "setting-name" }, make("label", { for: id }, label(setting)), reset), control.element, explained, wrong);
  control.focus.setAttribute("aria-describedby", `${id}-help ${id}-problem`);
  for (const event of ["input", "change"]) element.addEventListener(event, () => { show(); problem(); });

  function show() {
    reset.hidden = control.value() === undefined;
    const preset = setting.name === "preset" && info.presets.find((one) => one.name === (control.value() ?? setting.default));
    setText(explained, preset ? presetText(preset) : setting.main ? help(setting) : `${help(setting)} (${setting.allowed})`);
  }
  /** Say what is wrong: in the words of the server, or that the value is not in the range. */
  function problem(error) {
    const text = error ? error.error : outside(setting, control.value()) ? t("settings.allowed", { allowed: setting.allowed }) : "";
    setText(wrong, text);
    if (text) control.focus.setAttribute("aria-invalid", "true");
    else control.focus.removeAttribute("aria-invalid");
  }
  show();
  return {
    element,
    value: control.value,
    set(value) { control.set(value); show(); problem(); },
    usual: control.usual,
    problem,
  };
}

/** Whether a number is not one, or not in its range. */
function outside(setting, value) {
  if (value === undefined || setting.choices.includes(value) || !["integer", "number"].includes(setting.kind)) return false;
  return typeof value !== "number" || value < (setting.minimum ?? -Infinity) || value > (setting.maximum ?? Infinity);
}

const presetText = (preset) => has(`settings.preset_${preset.name.replaceAll("-", "_")}`) ? t(`settings.preset_${preset.name.replaceAll("-", "_")}`) : preset.summary;

const usualText = (setting, value) => t("settings.usual", { value: setting.kind === "boolean" ? t(value ? "settings.yes" : "settings.no") : choiceText(setting, writeValue(value)) });

function choiceControl(setting, info, id, changed) {
  const offered = setting.kind === "boolean" ? ["true", "false"] : setting.name === "preset" ? info.presets.map((preset) => preset.name) : setting.choices;
  const text = (value) => setting.kind === "boolean" ? t(value === "true" ? "settings.yes" : "settings.no") : choiceText(setting, value);
  const usual = make("option", { value: "" });
  const select = make("select", { id, on: { change: changed } }, usual, ...offered.map((value) => make("option", { value }, text(value))));
  return {
    element: select, focus: select,
    value: () => select.value === "" ? undefined : setting.kind === "boolean" ? select.value === "true" : readValue(setting, select.value),
    set(value) { select.value = value === undefined ? "" : String(value); },
    usual(value) { setText(usual, usualText(setting, value)); },
  };
}

/** Words and common numbers in a list, and any other value in a field below it. */
function mixedControl(setting, id, changed) {
  const usual = make("option", { value: "" });
  const words = [...setting.choices, ...(OFFERED[setting.name] || []).map(String)];
  const text = (word) => OFFERED[setting.name]?.includes(Number(word)) ? t("settings.pixels", { number: Number(word) }) : choiceText(setting, word);
  const other = make("input", { type: "text", inputMode: setting.kind === "list" ? "text" : "decimal", hidden: true, autocomplete: "off", "aria-label": t("settings.other_of", { name: label(setting) }), on: { input: changed } });
  const select = make("select", { id, on: { change: () => {
    other.hidden = select.value !== OTHER;
    if (!other.hidden) other.focus();
    changed();
  } } }, usual, ...words.map((word) => make("option", { value: word }, text(word))), make("option", { value: OTHER }, t("settings.other")));
  return {
    element: make("div", { class: "setting-pair" }, select, other), focus: select,
    value() {
      const chosen = select.value === OTHER ? other.value.trim() : select.value;
      return chosen === "" ? undefined : readValue(setting, chosen);
    },
    set(value) {
      const chosen = value === undefined ? "" : writeValue(value);
      const known = chosen === "" || words.includes(chosen);
      select.value = known ? chosen : OTHER;
      other.value = known ? "" : chosen;
      other.hidden = known;
    },
    usual(value) { setText(usual, usualText(setting, value)); },
  };
}

function textControl(setting, id, changed) {
  const input = make("input", { id, type: "text", inputMode: ["integer", "number"].includes(setting.kind) ? "decimal" : "text", autocomplete: "off", spellcheck: false });
  const ends = SLIDERS[setting.name];
  const slider = ends && make("input", { type: "range", min: 0, max: SLIDER_STEPS, step: 1, "aria-label": label(setting), "aria-describedby": `${id}-help` });
  let assumed = setting.default;

  function follow() {
    if (!slider) return;
    const value = Number(readValue(setting, input.value.trim() || writeValue(assumed)));
    const part = Math.log(value / ends[0]) / Math.log(ends[1] / ends[0]);
    slider.value = value > 0 && isFinite(part) ? Math.round(Math.min(1, Math.max(0, part)) * SLIDER_STEPS) : 0;
    slider.setAttribute("aria-valuetext", String(value));
  }
  input.addEventListener("input", () => { follow(); changed(); });
  slider?.addEventListener("input", () => {
    const value = ends[0] * (ends[1] / ends[0]) ** (slider.value / SLIDER_STEPS);
    input.value = writeValue(Number(value.toPrecision(2)));
    slider.setAttribute("aria-valuetext", input.value);
    changed();
  });
  const scale = slider && make("div", { class: "scale", "aria-hidden": "true" }, make("span", {}, t(`settings.low_${setting.name}`)), make("span", {}, t(`settings.high_${setting.name}`)));
  return {
    element: slider ? make("div", { class: "slider" }, make("div", {}, slider, scale), input) : input, focus: input,
    value: () => input.value.trim() === "" ? undefined : readValue(setting, input.value.trim()),
    set(value) { input.value = value === undefined ? "" : writeValue(value); follow(); },
    usual(value) { assumed = value; input.placeholder = usualText(setting, value); if (slider) input.placeholder = writeValue(value); follow(); },
  };
}
