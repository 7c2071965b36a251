// One job: its picture while it is painted and afterwards, its failure, history, inputs and settings.
import { address, get } from "./api.js";
import { button, icon, make, picture, redraw } from "./dom.js";
import { changesOf, failureOf, smaller } from "./failures.js";
import { act, changedSettings, download, FAILED, heading, imageOf, PAINTED, requestedText, stateChip, variant } from "./job_parts.js";
import { latestAddress } from "./jobs.js";
import { curve } from "./now.js";
import { hashOf } from "./navigation.js";
import { paintAgain, retryWithChanges } from "./repeat.js";
import { mayChange, settings, store, subscribe, whenChanged } from "./store.js";
import { choiceText, label } from "./settings_form.js";
import { writeValue } from "./setting_values.js";
import { bytes, date, duration, number, percent, t } from "./texts.js";

const SAVED = ["result", "sidecar", "loss-plot", "time-lapse"];
const INBOX_PAUSE = 2000; // milliseconds between two looks for a job that the daemon has not taken yet

let view = null;

export const title = () => view?.job ? view.job.title : t("job.title");

/** Show the job whose id is in the address. */
export async function show(place, { parts }) {
  view = new JobView(place, parts[0]);
  await view.start();
}

export function leave() {
  view?.end();
  view = null;
}

class JobView {
  constructor(place, id) {
    Object.assign(this, { place, id, job: null, info: null });
    this.parts = Object.fromEntries(["head", "reason", "pictures", "painting", "downloads", "inputs", "settings", "history"].map((part) => [part, make("section", { class: `job-${part}`, hidden: part !== "head" })]));
    const { head, reason, pictures, painting, downloads, inputs, settings: chosen, history } = this.parts;
    place.classList.add("job");
    place.append(head, reason, make("div", { class: "job-columns" }, make("div", {}, pictures, painting, downloads, inputs), make("div", {}, history, chosen)));
    this.ends = [subscribe(() => { if (this.job) this.drawPainting(); }), whenChanged(() => this.load())];
  }

  async start() {
    const known = settings().then((info) => { this.info = info; }, () => {});
    await this.load(known);
  }

  end() {
    this.ended = true;
    clearTimeout(this.timer);
    for (const end of this.ends) end();
  }

  /** Request the job and show it, after `known`. */
  async load(known = null) {
    try {
      this.job = await get(`/jobs/${this.id}`);
      await known;
    } catch (error) {
      if (!this.ended) this.fail(error);
      return;
    }
    if (this.ended) return;
    this.draw();
    clearTimeout(this.timer);
    if (this.job.state === "inbox") this.timer = setTimeout(() => this.load(), INBOX_PAUSE);
  }

  fail(error) {
    redraw(this.parts.head, error.message, () => [back(), make("h1", { tabIndex: -1 }, t(error.status === 404 ? "job.unknown" : "job.trouble")),
      make("p", { class: "problem", role: "alert" }, error.message), error.status === 404 ? null : button(t("jobs.again"), { icon: "retry", on: () => this.load() })]);
  }

  draw() {
    const { job, parts } = this;
    redraw(parts.head, [job.title, job.state, gone(job), job.requested, job.actions, job.priority, job.updated], () => this.head());
    this.show("reason", [...FAILED, "retrying"].includes(job.state) && job.error !== "", [job.error, job.state, job.actions], () => this.reason());
    this.show("pictures", true, [job.files, job.result, PAINTED.includes(job.state), job.inputs], () => this.pictures());
    const files = job.files.filter((file) => SAVED.includes(file));
    this.show("downloads", files.length > 0, files, () => this.downloads(files));
    this.show("inputs", job.inputs.length > 0, job.inputs, () => [make("h2", {}, t("job.inputs")), make("ul", { class: "job-files" }, job.inputs.map((input, number) => this.input(input, number)))]);
    this.show("settings", Object.keys(job.settings).length > 0, [job.settings, job.outputs, Boolean(this.info)], () => this.settings());
    this.show("history", job.events.length > 0, job.events, () => [make("h2", {}, t("job.history")), make("ol", { class: "job-events" }, joined(job.events).map(event))]);
    this.drawPainting();
  }

  show(part, visible, values, build) {
    this.parts[part].hidden = !visible;
    if (visible) redraw(this.parts[part], values, build);
  }

  head() {
    const { job } = this, more = mayChange();
    const variantText = variant(job.batch ? { ...job, batch: { ...job.batch, name: "" } } : job);
    const facts = [
      [t("job.id"), make("code", {}, job.short_id)],
      job.batch ? [t("job.batch"), make("a", { href: hashOf("jobs", { filter: "all", batch: job.batch.name }) }, job.batch.name)] : null,
      variantText ? [t("job.variant"), variantText] : null,
      [t("job.created"), date(job.created)], [t("job.updated"), date(job.updated)],
      job.priority ? [t("job.priority"), String(job.priority)] : null,
      job.attempts > 1 ? [t("job.attempts"), String(job.attempts)] : null,
    ];
    return [back(), make("h1", { class: "job-heading", tabIndex: -1 }, heading(job)),
      make("p", { class: "job-line", role: "status" }, stateChip(job), job.requested ? make("span", { class: "jobs-requested" }, requestedText(job)) : null, deleted(job) ? make("span", {}, t("job.deleted")) : gone(job) ? make("span", {}, t("job.result_gone")) : null),
      make("div", { class: "job-actions" },
        hasResult(job) ? make("a", { class: "button primary", href: viewerOf(job) }, icon("results"), make("span", {}, t("job.view"))) : null,
        more && job.result ? button(t("job.repeat"), { icon: "paint", on: () => paintAgain(job) }) : null,
        more && job.actions.includes("retry") ? button(t("job.retry_changed"), { icon: "retry", on: () => this.retry({}) }) : null,
        more ? ["cancel", "priority", "delete"].filter((action) => job.actions.includes(action)).map((action) => button(t(`job.do_${action}`), {
          icon: { cancel: "close", priority: "up", delete: "trash" }[action], kind: action === "delete" ? "danger" : "", on: () => this.perform(action) })) : null),
      make("dl", { class: "job-facts" }, facts.filter((fact) => fact && fact[1]).map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value))))];
  }

  async perform(action, more) {
    if (await act(action, [this.job], more ? { more } : {})) await this.load();
  }

  async retry(changes) {
    if (await retryWithChanges([this.job], changes)) await this.load();
  }

  /** The reason of a failure, with the buttons that help. */
  reason() {
    const { job } = this, { kind, helps } = failureOf(job);
    const buttons = {
      smaller: () => button(t("job.help_smaller", { size: smaller(job) }), { on: () => this.perform("retry", { set: changesOf(job, "smaller") }) }),
      float32: () => button(t("job.help_float32"), { on: () => this.perform("retry", { set: changesOf(job, "float32") }) }),
      change: () => button(t("job.help_change"), { on: () => this.retry({}) }),
      masks: () => button(t("job.help_masks"), { on: () => this.retry({}) }),
      style: () => button(t("job.help_style"), { on: () => this.retry({ style: true }) }),
      retry: () => button(t("job.help_retry"), { icon: "retry", on: () => this.perform("retry") }),
      again: () => make("a", { class: "button", href: "#/" }, icon("upload"), make("span", {}, t("job.help_again"))),
    };
    const waits = job.state === "retrying";
    return [make("h2", {}, icon("warning"), make("span", {}, t(`job.failure_${kind}`))),
      make("p", {}, t(waits ? "job.will_retry" : `job.advice_${kind}`)),
      !waits && mayChange() ? make("div", { class: "buttons" }, helps.map((help, number) => {
        const element = buttons[help]();
        if (!number) element.classList.add("primary");
        return element;
      })) : null,
      make("details", { open: kind === "other" }, make("summary", {}, t("job.message")), make("p", { class: "job-message" }, job.error))];
  }

  /** The content beside the result, or beside the picture that is being painted. */
  pictures() {
    const { job } = this, content = job.inputs.findIndex((input) => input.role === "content");
    const figure = (image, caption) => make("figure", {}, image, make("figcaption", {}, caption));
    this.preview = null;
    const figures = [];
    if (content >= 0 && job.inputs[content].available) figures.push(figure(picture(imageOf(job, `inputs/${content}`, { size: "view" }), { alt: t("job.content_of", { name: job.title }) }), t("job.content")));
    if (hasResult(job)) figures.push(figure(make("a", { class: "job-open", href: viewerOf(job), "aria-label": t("job.view") }, picture(imageOf(job, "result", { size: "view", v: job.updated }), { alt: t("job.result_of", { name: job.title }) })), t("job.result")));
    else if (PAINTED.includes(job.state)) {
      this.preview = make("div", { class: "job-preview" }, t("job.no_preview"));
      figures.push(figure(this.preview, t("job.preview")));
    }
    return figures.length ? [make("h2", { class: "unseen" }, t("job.pictures")), make("div", { class: "job-pair" }, figures)] : [];
  }

  /** Progress, speed, curve and preview of a job that is being painted. */
  drawPainting() {
    const painting = store.status?.paintings.find((one) => one.id === this.id);
    this.show("painting", Boolean(painting), painting, () => progress(painting));
    if (!painting?.preview || !this.preview || this.preview.dataset.version === String(painting.preview)) return;
    const { preview } = this;
    preview.dataset.version = painting.preview;
    const image = make("img", { alt: t("job.preview_of", { name: this.job.title }), src: imageOf(this.job, "preview", { v: painting.preview }) });
    image.addEventListener("load", () => preview.replaceChildren(image)); // the older one stays until then
  }

  downloads(files) {
    return [make("h2", {}, t("job.downloads")), make("div", { class: "buttons" },
      files.map((file) => download(t(`job.file_${file}`), this.job, file)), files.includes("result") ? download(t("job.file_zip"), this.job, "zip") : null)];
  }

  input(input, number) {
    const { job } = this, href = address(`/jobs/${job.id}/inputs/${number}`, { download: true });
    const shown = input.available && !["settings", "batch", "unknown"].includes(input.role);
    return make("li", {}, shown ? picture(imageOf(job, `inputs/${number}`, { size: "thumbnail" }), { class: "job-thumb" }) : make("span", { class: "job-thumb missing" }),
      make("div", {}, make("small", {}, t(`job.role_${input.role}`)), input.available ? make("a", { href, download: "" }, input.name) : make("span", {}, input.name),
        make("small", {}, input.available ? bytes(input.bytes) : t("job.file_gone"))));
  }

  /** All settings; the preset and those that differ from it come first. */
  settings() {
    const known = new Map(this.info?.settings.map((one) => [one.name, one])), all = Object.entries({ ...this.job.settings, ...this.job.outputs });
    const differ = this.info ? changedSettings(this.job, this.info) : {};
    const row = ([key, value]) => make("div", {}, make("dt", { title: key }, known.has(key) ? label(known.get(key)) : key),
      make("dd", {}, known.has(key) && typeof value === "string" ? choiceText(known.get(key), value) : writeValue(value)));
    const rows = (entries) => make("dl", { class: "job-settings-list" }, entries.map(row));
    const changed = all.filter(([key]) => key in differ), same = all.filter(([key]) => !(key in differ));
    return [make("h2", {}, t("job.settings")), changed.length ? rows(changed) : make("p", {}, t("job.settings_default")),
      same.length ? make("details", {}, make("summary", {}, t("job.settings_same", { count: same.length })), rows(same)) : null];
  }
}

const back = () => make("a", { class: "button quiet job-back", href: latestAddress() }, icon("back"), make("span", {}, t("job.back")));
const viewerOf = (job) => `#/results/${job.id}`;
const deleted = (job) => job.state === "done" && !job.result;
const hasResult = (job) => job.result !== "" && job.files.includes("result");
/** Whether somebody has moved or removed the picture. */
const gone = (job) => job.state === "done" && job.result !== "" && !hasResult(job);

/** The events, with one for several in a row whose states have the same name here. */
function joined(events) {
  const found = [];
  for (const { note, ...one } of events) {
    const last = found.at(-1), notes = note ? [note] : [];
    if (last && last.attempt === one.attempt && t(`job.state_${last.state}`) === t(`job.state_${one.state}`)) last.notes.push(...notes);
    else found.push({ ...one, notes });
  }
  return found;
}

function event({ at, state, attempt, notes }) {
  return make("li", {}, make("time", { dateTime: new Date(at * 1000).toISOString() }, date(at)), stateChip({ state }),
    attempt > 1 ? make("small", {}, t("job.attempt", { number: attempt })) : null, notes.map((note) => make("p", {}, note)));
}

function progress({ name, percent: part, done, total, speed, left, curve: points }) {
  const pace = total ? [t("now.iterations", { done, total }), speed ? t("now.speed", { speed: number(speed, { maximumSignificantDigits: 2 }) }) : "", left === null ? "" : t("jobs.left", { time: duration(left) })] : [t("now.starting")];
  return [make("div", { class: "job-progress" }, make("b", {}, percent(part / 100)), make("progress", { max: 100, value: part, "aria-label": t("job.progress_of", { name }) })),
    make("p", { class: "help" }, pace.filter(Boolean).join(" · ")), make("figure", { class: "curve" }, curve(points))];
}
