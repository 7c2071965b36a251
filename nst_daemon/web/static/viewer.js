// One result in the whole window: compared with its content, zoomed, saved, deleted, painted again.
import { address, get } from "./api.js";
import { button, icon, make, picture, redraw, setText } from "./dom.js";
import { act, changedSettings, download, heading, imageOf, name, variant } from "./job_parts.js";
import { paintAgain } from "./repeat.js";
import { choiceText, label } from "./settings_form.js";
import { writeValue } from "./setting_values.js";
import { Stage } from "./stage.js";
import { mayChange, settings } from "./store.js";
import { keep, stored } from "./stored.js";
import { bytes, date, percent, t } from "./texts.js";

const COMPARING = "compare", INFORMED = "details"; // what is remembered
const NEAR_END = 5; // so many pictures before the end, more are requested

let viewer = null;

/**
 * Show results in the whole window, beginning with one of them.
 * jobs: JobInfo, the first ones of `total`; more(): a promise of all jobs, with further ones, or null; changed(): a job was changed;
 * closed(job): the viewer was closed, and this was the last picture.
 */
export function openViewer(jobs, position, { total = jobs.length, more = null, changed = () => {}, closed = () => {} } = {}) {
  viewer?.close();
  viewer = new Viewer(jobs, position, { total, more, changed, closed });
}

/** Close it, where the view is left. */
export function closeViewer() {
  viewer?.close();
}

class Viewer {
  constructor(jobs, position, callbacks) {
    Object.assign(this, { jobs, position, ...callbacks });
    this.stage = new Stage({ swipe: (step) => this.step(step), zoomed: () => this.showZoom() });
    this.stage.compare(stored(COMPARING, true));
    this.build();
    this.address = location.href;
    history.pushState({ viewer: true }, "");
    this.back = () => this.close();
    addEventListener("popstate", this.back);
    this.pressed = (event) => this.key(event);
    addEventListener("keydown", this.pressed); // of the whole page: a click on the picture takes the focus from the dialog
    document.body.append(this.dialog);
    document.documentElement.classList.add("viewing");
    this.dialog.showModal();
    this.load();
  }

  build() {
    const tool = (key, shape, act, more = {}) => button("", { icon: shape, label: t(`viewer.${key}`), kind: "quiet", on: act, ...more });
    this.title = make("h2", { id: "viewer-title", class: "viewer-title" });
    this.place = make("span", { class: "viewer-place" });
    this.zoomText = make("span", { class: "viewer-zoom" });
    this.compareTool = tool("compare", "compare", () => this.toggleCompare());
    this.detailsTool = tool("details", "info", () => this.toggleDetails());
    this.previous = tool("previous", "back", () => this.step(-1), { className: "button quiet only-icon viewer-step previous" });
    this.next = tool("next", "forward", () => this.step(1), { className: "button quiet only-icon viewer-step next" });
    this.save = make("a", { class: "button quiet only-icon", download: "", "aria-label": t("viewer.save"), title: t("viewer.save") }, icon("download"));
    this.details = make("aside", { class: "viewer-details", "aria-label": t("viewer.details"), tabIndex: 0 });
    this.said = make("p", { class: "viewer-said", role: "status" });
    const bar = make("div", { class: "viewer-bar" }, tool("close", "close", () => this.close()), make("div", { class: "viewer-names" }, this.title, this.place), this.save,
      make("div", { class: "viewer-tools" }, this.compareTool, tool("zoom_out", "minus", () => this.stage.zoomOut()), this.zoomText, tool("zoom_in", "plus", () => this.stage.zoomIn()),
        tool("fit", "fit", () => this.stage.fit()), tool("full_size", "pixels", () => this.stage.full()),
        document.fullscreenEnabled ? tool("full_screen", "expand", () => this.toggleFullScreen()) : null, this.detailsTool));
    this.slide = make("div", { class: "viewer-slide" }, make("label", { for: "viewer-slider", "aria-hidden": "true" }, t("job.content")), this.stage.slider, make("span", { "aria-hidden": "true" }, t("job.result")));
    this.dialog = make("dialog", { class: "viewer", "aria-labelledby": "viewer-title", on: { close: () => this.ended() } },
      bar, make("div", { class: "viewer-middle" }, this.stage.element, this.previous, this.next, this.slide, this.said), this.details);
    this.showDetails(stored(INFORMED, matchMedia("(min-width: 64rem)").matches));
  }

  get job() { return this.jobs[this.position]; }

  /** Show the current picture. */
  async load() {
    const { job } = this, turn = this.turn = {};
    redraw(this.title, job.title, () => [name(heading(job))]);
    setText(this.place, [variant(job), this.jobs.length > 1 ? t("viewer.position", { number: this.position + 1, total: this.total }) : ""].filter(Boolean).join(" · "));
    this.previous.disabled = this.position === 0;
    this.next.disabled = this.position === this.jobs.length - 1;
    this.save.href = address(`/jobs/${job.id}/result`, { download: true });
    this.details.replaceChildren();
    let whole, info;
    try {
      [whole, info] = await Promise.all([get(`/jobs/${job.id}`), settings()]);
    } catch (error) {
      if (turn === this.turn) this.stage.say(error.message);
      return;
    }
    if (turn !== this.turn) return;
    this.whole = whole;
    this.draw(info);
    if (!whole.result) return this.stage.say(t("viewer.deleted"));
    const content = whole.inputs.findIndex((input) => input.role === "content" && input.available);
    await this.stage.show({
      name: whole.title,
      result: imageOf(whole, "result", { size: "view", v: whole.updated }),
      original: imageOf(whole, "result", { size: "original", v: whole.updated }),
      content: content < 0 ? null : imageOf(whole, `inputs/${content}`, { size: "view" }),
    });
    if (turn === this.turn) this.showCompare();
    this.ahead();
  }

  /** Request further jobs, and the next picture, before they are needed. */
  async ahead() {
    const after = this.jobs[this.position + 1];
    if (after?.result) new Image().src = imageOf(after, "result", { size: "view", v: after.updated });
    if (!this.more || this.position < this.jobs.length - NEAR_END) return;
    const { id } = this.job, jobs = await this.more().catch(() => null);
    if (!jobs) return;
    this.jobs = jobs;
    this.position = Math.max(0, jobs.findIndex((job) => job.id === id));
    this.next.disabled = this.position === jobs.length - 1;
  }

  step(by) {
    const position = this.position + by;
    if (position < 0 || position >= this.jobs.length) return;
    this.position = position;
    this.say("");
    this.load();
  }

  // Tools

  toggleCompare() {
    this.stage.compare(!this.stage.comparing);
    keep(COMPARING, this.stage.comparing);
    this.showCompare();
  }

  showCompare() {
    const { hasContent, comparing } = this.stage;
    this.compareTool.disabled = !hasContent;
    this.compareTool.setAttribute("aria-pressed", String(hasContent && comparing));
    const shown = hasContent && comparing;
    if (!shown && this.slide.contains(document.activeElement)) this.compareTool.focus();
    this.slide.hidden = !shown;
    this.showZoom();
  }

  showZoom() {
    setText(this.zoomText, this.stage.wide ? percent(this.stage.zoomPart) : "");
  }

  toggleDetails() {
    keep(INFORMED, this.details.hidden);
    this.showDetails(this.details.hidden);
  }

  showDetails(on) {
    this.details.hidden = !on;
    this.detailsTool.setAttribute("aria-expanded", String(on));
  }

  toggleFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.dialog.requestFullscreen().catch(() => {}); // the browser may forbid it
  }

  key(event) {
    if (event.target.matches("input, select, textarea") && !["c", "f", "i", "PageUp", "PageDown"].includes(event.key)) return;
    if (event.ctrlKey || event.metaKey || event.altKey || [...document.querySelectorAll("dialog[open]")].at(-1) !== this.dialog) return;
    const arrow = (right, down) => this.stage.canPan ? this.stage.pan(right, down) : right && this.step(right);
    const acts = {
      ArrowLeft: () => arrow(-1, 0), ArrowRight: () => arrow(1, 0), ArrowUp: () => arrow(0, -1), ArrowDown: () => arrow(0, 1),
      PageUp: () => this.step(-1), PageDown: () => this.step(1), "+": () => this.stage.zoomIn(), "=": () => this.stage.zoomIn(), "-": () => this.stage.zoomOut(),
      0: () => this.stage.fit(), 1: () => this.stage.full(), c: () => this.toggleCompare(), f: () => this.toggleFullScreen(), i: () => this.toggleDetails(),
    };
    const scrolls = this.details.contains(event.target) && event.key.startsWith("Arrow") || event.key.startsWith("Page") && this.details.contains(event.target);
    if (!(event.key in acts) || scrolls) return;
    event.preventDefault();
    acts[event.key]();
  }

  // Details

  draw(info) {
    const { whole: job } = this, url = (file) => address(`/jobs/${job.id}/${file}`);
    const files = job.result ? [
      download(t("viewer.save_picture"), job, "result"), job.files.includes("sidecar") ? download(t("viewer.save_settings"), job, "sidecar") : null, download(t("viewer.save_zip"), job, "zip")] : [];
    const known = new Map(info.settings.map((one) => [one.name, one]));
    const values = Object.entries({ ...changedSettings(job, info), size: job.settings.size ?? "", ...job.outputs }).map(([key, value]) => [known.has(key) ? label(known.get(key)) : key, known.has(key) && typeof value === "string" ? choiceText(known.get(key), value) : writeValue(value)]);
    const shown = (key, file) => job.files.includes(file) ? make("figure", {}, make("h3", {}, t(`viewer.${key}`)), picture(url(file), { alt: t(`viewer.${key}`) })) : null;
    this.details.replaceChildren(
      make("p", { class: "viewer-full" }, make("b", { class: "name" }, heading(job)), make("small", {}, variant(job)), make("small", {}, date(job.updated))),
      make("div", { class: "viewer-actions" },
        mayChange() ? button(t("job.repeat"), { icon: "paint", kind: "primary", on: () => this.repeat() }) : null, ...files.filter(Boolean),
        make("a", { class: "button quiet", href: `#/jobs/${job.id}`, on: { click: () => this.leave() } }, icon("jobs"), make("span", {}, t("viewer.open_job"))),
        mayChange() && job.actions.includes("delete") ? button(t("viewer.delete"), { icon: "trash", kind: "danger quiet", on: () => this.remove() }) : null),
      make("ul", { class: "job-files" }, ...job.inputs.map((input, number) => ["content", "style"].includes(input.role) ? make("li", {},
        input.available ? picture(imageOf(job, `inputs/${number}`, { size: "thumbnail" }), { class: "job-thumb" }) : make("span", { class: "job-thumb missing" }),
        make("div", {}, make("small", {}, t(`job.role_${input.role}`)), make("span", { class: "name" }, input.name), make("small", {}, bytes(input.bytes)))) : null).filter(Boolean)),
      make("dl", { class: "job-settings-list" }, values.map(([key, value]) => make("div", {}, make("dt", {}, key), make("dd", {}, value)))),
      ...[shown("time_lapse", "time-lapse"), shown("loss_plot", "loss-plot")].filter(Boolean),
      make("p", { class: "viewer-keys" }, t("viewer.keys")));
  }

  async repeat() {
    const made = await paintAgain(this.whole);
    if (made) this.say(`${t("repeat.added")} `, make("a", { href: `#/jobs/${made.id}`, on: { click: () => this.leave() } }, made.name));
  }

  async remove() {
    if (!await act("delete", [this.whole])) return;
    this.say(t("viewer.delete_requested"));
    this.changed();
  }

  say(...children) {
    this.said.replaceChildren(...children);
  }

  // Closing

  /** A link leads away: the address must stay that of the link. */
  leave() {
    this.left = true;
    this.dialog.close();
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  ended() {
    removeEventListener("popstate", this.back);
    removeEventListener("keydown", this.pressed);
    if (document.fullscreenElement) document.exitFullscreen();
    this.turn = null;
    this.stage.end();
    this.dialog.remove();
    document.documentElement.classList.remove("viewing");
    if (viewer === this) viewer = null;
    if (!this.left && history.state?.viewer && location.href === this.address) history.back();
    this.closed(this.job);
  }
}
