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

export class Viewer {
  /**
   * Show the window without a picture.
   * wanted(id): the visitor wants another picture; more(): further results will be wanted; changed(): a job was changed;
   * closed(): the visitor has closed the window.
   */
  constructor(callbacks) {
    Object.assign(this, callbacks, { id: "", job: null, jobs: [], total: 0, over: false });
    this.stage = new Stage({ swipe: (step) => this.step(step), zoomed: () => this.showZoom() });
    this.stage.compare(stored(COMPARING, true));
    this.build();
    this.pressed = (event) => this.key(event);
    addEventListener("keydown", this.pressed); // of the whole page: a click on the picture takes the focus from the dialog
    document.body.append(this.dialog);
    document.documentElement.classList.add("viewing");
    this.dialog.showModal();
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
    const bar = make("div", { class: "viewer-bar" }, tool("close", "close", () => this.dialog.close()), make("div", { class: "viewer-names" }, this.title, this.place), this.save,
      make("div", { class: "viewer-tools" }, this.compareTool, tool("zoom_out", "minus", () => this.stage.zoomOut()), this.zoomText, tool("zoom_in", "plus", () => this.stage.zoomIn()),
        tool("fit", "fit", () => this.stage.fit()), tool("full_size", "pixels", () => this.stage.full()),
        document.fullscreenEnabled ? tool("full_screen", "expand", () => this.toggleFullScreen()) : null, this.detailsTool));
    this.slide = make("div", { class: "viewer-slide" }, make("label", { for: "viewer-slider", "aria-hidden": "true" }, t("job.content")), this.stage.slider, make("span", { "aria-hidden": "true" }, t("job.result")));
    this.dialog = make("dialog", { class: "viewer", "aria-labelledby": "viewer-title", on: { close: () => { if (!this.over) this.closed(); } } },
      bar, make("div", { class: "viewer-middle" }, this.stage.element, this.previous, this.next, this.slide, this.said), this.details);
    this.showDetails(stored(INFORMED, matchMedia("(min-width: 64rem)").matches));
  }

  /** Where the picture is in the list; -1 if it is not in it. */
  get position() { return this.jobs.findIndex((job) => job.id === this.id); }

  /** Use a list of results, the first ones of `total`, if the picture is in it. A deleted picture stays in the list that had it. */
  relist(jobs, total) {
    if (jobs.some((job) => job.id === this.id)) Object.assign(this, { jobs, total });
    else if (this.position < 0) Object.assign(this, { jobs: [], total: 0 });
    this.showPlace();
  }

  showPlace() {
    const { position } = this, job = this.job || this.jobs[position];
    redraw(this.title, job?.title, () => [job ? name(heading(job)) : t("viewer.title")]);
    setText(this.place, [job ? variant(job) : "", this.jobs.length > 1 ? t("viewer.position", { number: position + 1, total: this.total }) : ""].filter(Boolean).join(" · "));
    this.previous.disabled = position <= 0;
    this.next.disabled = position < 0 || position === this.jobs.length - 1;
  }

  /** Show the picture of a job. Returns a promise of the job; null if it cannot be loaded, or another one is shown meanwhile. */
  async show(id, jobs, total) {
    const turn = this.turn = {};
    Object.assign(this, { id, job: null });
    this.say("");
    this.relist(jobs, total);
    this.save.href = address(`/jobs/${encodeURIComponent(id)}/result`, { download: true });
    this.details.replaceChildren();
    let job, info;
    try {
      [job, info] = await Promise.all([get(`/jobs/${encodeURIComponent(id)}`), settings()]);
    } catch (error) {
      if (turn === this.turn) this.fail([404, 422].includes(error.status) ? t("viewer.unknown") : error.message);
      return null;
    }
    if (turn !== this.turn) return null;
    this.job = job;
    this.showPlace();
    this.draw(info);
    if (job.result) this.load(turn);
    else this.fail(t(job.state === "done" ? "viewer.deleted" : "viewer.unfinished"));
    return job;
  }

  async load(turn) {
    const { job } = this, content = job.inputs.findIndex((input) => input.role === "content" && input.available);
    this.save.hidden = false;
    await this.stage.show({
      name: job.title,
      result: imageOf(job, "result", { size: "view", v: job.updated }),
      original: imageOf(job, "result", { size: "original", v: job.updated }),
      content: content < 0 ? null : imageOf(job, `inputs/${content}`, { size: "view" }),
    });
    if (turn !== this.turn) return;
    this.showCompare();
    this.ahead();
  }

  /** Show a text: there is no picture. */
  fail(text) {
    this.save.hidden = true;
    this.stage.reset();
    this.stage.say(text);
    this.showCompare();
  }

  /** Request further jobs, and the next picture, before they are needed. */
  ahead() {
    const { position } = this, after = this.jobs[position + 1];
    if (position < 0) return;
    if (after?.result) new Image().src = imageOf(after, "result", { size: "view", v: after.updated });
    if (position >= this.jobs.length - NEAR_END) this.more();
  }

  step(by) {
    const { position } = this, job = position < 0 ? null : this.jobs[position + by];
    if (job) this.wanted(job.id);
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
    const { job } = this, url = (file) => address(`/jobs/${job.id}/${file}`);
    const files = job.result ? [
      download(t("viewer.save_picture"), job, "result"), job.files.includes("sidecar") ? download(t("viewer.save_settings"), job, "sidecar") : null, download(t("viewer.save_zip"), job, "zip")] : [];
    const known = new Map(info.settings.map((one) => [one.name, one]));
    const values = Object.entries({ ...changedSettings(job, info), size: job.settings.size ?? "", ...job.outputs }).map(([key, value]) => [known.has(key) ? label(known.get(key)) : key, known.has(key) && typeof value === "string" ? choiceText(known.get(key), value) : writeValue(value)]);
    const shown = (key, file) => job.files.includes(file) ? make("figure", {}, make("h3", {}, t(`viewer.${key}`)), picture(url(file), { alt: t(`viewer.${key}`) })) : null;
    this.details.replaceChildren(
      make("p", { class: "viewer-full" }, make("b", { class: "name" }, heading(job)), make("small", {}, variant(job)), make("small", {}, date(job.updated))),
      make("div", { class: "viewer-actions" },
        mayChange() && job.result ? button(t("job.repeat"), { icon: "paint", kind: "primary", on: () => this.repeat() }) : null, ...files.filter(Boolean),
        make("a", { class: "button quiet", href: `#/jobs/${job.id}` }, icon("jobs"), make("span", {}, t("viewer.open_job"))),
        mayChange() && job.actions.includes("delete") ? button(t("viewer.delete"), { icon: "trash", kind: "danger quiet", on: () => this.remove() }) : null),
      make("ul", { class: "job-files" }, ...job.inputs.map((input, number) => ["content", "style"].includes(input.role) ? make("li", {},
        input.available ? picture(imageOf(job, `inputs/${number}`, { size: "thumbnail" }), { class: "job-thumb" }) : make("span", { class: "job-thumb missing" }),
        make("div", {}, make("small", {}, t(`job.role_${input.role}`)), make("span", { class: "name" }, input.name), make("small", {}, bytes(input.bytes)))) : null).filter(Boolean)),
      make("dl", { class: "job-settings-list" }, values.map(([key, value]) => make("div", {}, make("dt", {}, key), make("dd", {}, value)))),
      ...[shown("time_lapse", "time-lapse"), shown("loss_plot", "loss-plot")].filter(Boolean),
      make("p", { class: "viewer-keys" }, t("viewer.keys")));
  }

  async repeat() {
    const made = await paintAgain(this.job);
    if (made) this.say(`${t("repeat.added")} `, make("a", { href: `#/jobs/${made.id}` }, made.name));
  }

  async remove() {
    if (!await act("delete", [this.job])) return;
    this.say(t("viewer.delete_requested"));
    this.changed();
  }

  say(...children) {
    this.said.replaceChildren(...children);
  }

  /** Close the window. */
  end() {
    Object.assign(this, { over: true, turn: null });
    removeEventListener("keydown", this.pressed);
    if (document.fullscreenElement) document.exitFullscreen();
    this.dialog.close();
    this.stage.end();
    this.dialog.remove();
    document.documentElement.classList.remove("viewing");
  }
}
