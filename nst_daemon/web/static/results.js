// The results: a grid of pictures with search and filters, a selection for zip and delete, and the viewer (#/results/ID).
import { address, get } from "./api.js";
import { announce, button, icon, list, make, redraw, rove, searchField, setText } from "./dom.js";
import { act, heading, name, requestedText, thumbnail, variant } from "./job_parts.js";
import { hashOf, keepAddress, leaveTo, replaceAddress } from "./navigation.js";
import { Selection } from "./selection.js";
import { mayChange, styles, whenChanged } from "./store.js";
import { date, t } from "./texts.js";
import { Viewer } from "./viewer.js";

const PART = 60; // results of one request
const MOST_REFRESHED = 200; // results that are requested again after a change
const MOST_SOUGHT = 1000; // results that are loaded to find the pictures next to one
const MOST_ZIPPED = 200;
const AHEAD = "1200px"; // further results are requested so far before the end is in sight

let view = null, remembered = null;

export const title = () => view?.viewer?.job?.title || t("results.title");

/** Show the results; parameters of the address: q, batch, style. With the id of a job, show its picture in the viewer. */
export function show(place, { parts, query }) {
  view = new ResultsView(place, query);
  return Promise.all([view.shown, view.look(parts[0] || "")]);
}

/** Open or close the viewer, or show another picture in it, if the list stays the same. */
export function change({ parts, query }) {
  return view.key() === keyOf(chosen(query)) ? view.look(parts[0] || "") : null;
}

export function leave() {
  view?.end();
  view = null;
}

class ResultsView {
  constructor(place, parameters) {
    Object.assign(this, { place, ...chosen(parameters), jobs: [], next: null, total: 0, current: "", viewer: null, pending: null });
    this.selection = new Selection(() => this.showSelection());
    this.build();
    this.unsubscribe = whenChanged(() => { if (!this.pending) this.refresh(); });
    this.fillFilters();
    this.shown = this.restore();
  }

  end() {
    remembered = { key: this.key(), jobs: this.jobs, next: this.next, total: this.total, current: this.current, top: scrollY };
    this.viewer?.end();
    this.unsubscribe();
    this.observer.disconnect();
    this.request?.abort();
  }

  key() { return keyOf(this); }

  /** The address of the list, or of a picture in it. */
  address(id = "") {
    return hashOf(id ? `results/${id}` : "results", { q: this.query, batch: this.batch, style: this.style });
  }

  build() {
    this.search = searchField({ id: "results-search", value: this.query, label: t("results.search"), search: (query) => this.choose({ query }) });
    const choice = (key, change) => make("select", { id: `results-${key}`, "aria-label": t(`results.${key}`), on: { change: (event) => change(event.target.value) } }, make("option", { value: "" }, t(`results.every_${key}`)));
    this.batches = choice("batch", (batch) => this.choose({ batch }));
    this.styles = choice("style", (style) => this.choose({ style }));
    this.count = make("p", { class: "results-count", role: "status" });
    this.grid = make("ul", { class: "results-grid", "aria-label": t("results.title"), on: { keydown: (event) => this.move(event), focusin: (event) => this.focused(event) } });
    this.empty = make("div", { class: "empty", hidden: true });
    this.further = button(t("results.more"), { on: () => this.more(), hidden: true });
    this.bar = make("div", { class: "jobs-selected", role: "region", "aria-label": t("jobs.selection"), hidden: true });
    this.place.append(make("div", { class: "results-top" }, make("h1", {}, t("results.title")), this.count, make("div", { class: "results-filters" }, this.search, this.batches, this.styles)),
      this.grid, this.empty, make("div", { class: "results-more" }, this.further), this.bar);
    this.observer = new IntersectionObserver(([seen]) => { if (seen.isIntersecting) this.more(); }, { rootMargin: AHEAD });
  }

  async fillFilters() {
    const [{ batches }, library] = await Promise.all([get("/batches").catch(() => ({ batches: [] })), styles().catch(() => [])]);
    fill(this.batches, batches.map((batch) => batch.name), this.batch);
    fill(this.styles, library.map((style) => style.name), this.style);
  }

  // Loading

  /** Show what was loaded before another view was shown, at the same place; else the first part. */
  async restore() {
    if (remembered?.key !== this.key() || !remembered.jobs.length) return this.load();
    const { jobs, next, total, current, top } = remembered;
    Object.assign(this, { jobs, next, total, current });
    this.draw();
    scrollTo({ top, behavior: "instant" });
    await this.refresh();
  }

  parameters(more) {
    return { result: true, state: "done", order: "newest", q: this.query, batch: this.batch, style: this.style, limit: PART, ...more };
  }

  async load() {
    Object.assign(this, { jobs: [], next: null });
    this.grid.setAttribute("aria-busy", "true");
    const page = await this.fetch({});
    this.grid.removeAttribute("aria-busy");
    if (!page) return;
    Object.assign(this, { jobs: page.jobs, next: page.next, total: page.total });
    this.draw();
  }

  /** Load the next part. */
  async more(limit = PART) {
    if (this.next) this.pending ||= this.loadMore(limit).finally(() => { this.pending = null; });
    await this.pending;
  }

  async loadMore(limit) {
    const page = await this.fetch({ cursor: this.next, limit });
    if (!page) return;
    const known = new Set(this.jobs.map((job) => job.id));
    this.jobs = [...this.jobs, ...page.jobs.filter((job) => !known.has(job.id))];
    Object.assign(this, { next: page.next, total: page.total });
    this.draw();
    announce(t("results.loaded", { count: this.jobs.length, total: this.total }));
  }

  /** Request the newest results again; those that were loaded after them stay. */
  async refresh() {
    const limit = Math.min(MOST_REFRESHED, Math.max(PART, this.jobs.length));
    const page = await this.fetch({ limit });
    if (!page) return;
    const fresh = new Set(page.jobs.map((job) => job.id)), oldest = page.jobs.at(-1)?.updated ?? Infinity;
    const later = page.next ? this.jobs.filter((job) => !fresh.has(job.id) && job.updated <= oldest) : [];
    Object.assign(this, { jobs: [...page.jobs, ...later], total: page.total, next: later.length ? this.next : page.next });
    this.draw();
  }

  async fetch(more) {
    this.request?.abort();
    const request = this.request = new AbortController();
    try {
      return await get("/jobs", this.parameters(more), { signal: request.signal });
    } catch (error) {
      if (!request.signal.aborted) this.fail(error);
      return null;
    }
  }

  fail(error) {
    this.empty.hidden = false;
    redraw(this.empty, error.message, () => [make("p", { class: "problem", role: "alert" }, error.message), button(t("jobs.again"), { icon: "retry", on: () => this.load() })]);
  }

  choose(change) {
    Object.assign(this, change);
    this.selection.clear();
    keepAddress(this.address());
    return this.load();
  }

  // Showing

  draw() {
    setText(this.count, t("results.count", { count: this.total }));
    this.selection.refresh(this.jobs);
    list(this.grid, this.jobs, (job) => job.id, () => make("li", { class: "results-tile" }), (tile, job) => this.showTile(tile, job));
    this.empty.hidden = this.jobs.length > 0;
    if (!this.jobs.length) redraw(this.empty, this.key(), () => this.nothing());
    this.further.hidden = !this.next;
    this.observer.disconnect();
    if (this.next) this.observer.observe(this.further); // anew: it may still be in sight
    this.rove();
    this.showSelection();
    this.viewer?.relist(this.jobs, this.total);
  }

  nothing() {
    if (!this.query && !this.batch && !this.style) return [make("p", {}, t("results.none")), make("a", { class: "button primary", href: "#/" }, t("jobs.paint"))];
    return [make("p", {}, t("results.no_matches")), button(t("jobs.clear_search"), { on: () => {
      this.search.value = this.batches.value = this.styles.value = "";
      this.choose({ query: "", batch: "", style: "" });
    } })];
  }

  showTile(tile, job) {
    tile.job = job;
    redraw(tile, [job.title, job.result, job.updated, job.requested, this.address(job.id)], () => [
      make("a", { class: "results-open", href: this.address(job.id), "aria-label": t("results.open", { name: job.title }), title: job.title },
        thumbnail(job, { class: "results-face" }),
        make("span", { class: "results-text" }, name(heading(job)), make("small", {}, job.requested ? requestedText(job) : job.batch ? variant(job) : date(job.updated)))),
      make("label", { class: "results-select" }, make("input", { type: "checkbox", "aria-label": t("jobs.select", { name: job.title }), on: { click: (event) => this.selection.toggle(tile.job, event.target.checked, this.jobs, event.shiftKey) } }))]);
  }

  /** Give a tile the focus. The page is scrolled only if the tile is out of sight. */
  focus(id) {
    const tile = [...this.grid.children].find((one) => one.dataset.key === id) || this.grid.firstElementChild;
    const box = tile?.getBoundingClientRect();
    tile?.querySelector(".results-open").focus({ preventScroll: box.bottom > 0 && box.top < innerHeight });
  }

  // The viewer

  /** Show the picture of a job in the viewer, or close it if there is no id. */
  async look(id) {
    if (!id) return this.closeViewer();
    this.viewer ||= new Viewer({
      wanted: (other) => replaceAddress(this.address(other)),
      more: () => this.more(),
      changed: () => this.refresh(),
      closed: () => { this.closeViewer(); leaveTo(this.address()); },
    });
    this.current = id;
    const job = await this.viewer.show(id, this.jobs, this.total);
    if (job?.result) await this.seek(job);
  }

  /** Load the list up to a job, so that the viewer can show the pictures next to it. */
  async seek(job) {
    await this.shown;
    const wanted = () => this.viewer?.job?.id === job.id && this.next && this.jobs.length < MOST_SOUGHT
      && this.jobs.at(-1).updated >= job.updated && !this.jobs.some((one) => one.id === job.id);
    for (let requests = 0; wanted() && requests < MOST_SOUGHT / PART; requests++) await this.more(MOST_REFRESHED);
  }

  closeViewer() {
    if (!this.viewer) return;
    const { id } = this.viewer;
    this.viewer.end(); // the browser then gives the focus back to the tile that was clicked
    Object.assign(this, { viewer: null, current: id });
    this.rove();
    this.focus(id);
  }

  // Keyboard: one tile is in the order of the Tab key; arrow keys move to the others

  rove() {
    const tiles = [...this.grid.children], chosen = tiles.find((tile) => tile.dataset.key === this.current) || tiles[0];
    rove(tiles, chosen);
  }

  focused(event) {
    const tile = event.target.closest(".results-tile");
    if (!tile || tile.dataset.key === this.current) return;
    this.current = tile.dataset.key;
    this.rove();
  }

  move(event) {
    const tile = event.target.closest(".results-tile");
    if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = getComputedStyle(this.grid).gridTemplateColumns.split(" ").length, tiles = [...this.grid.children];
    const position = tiles.indexOf(tile);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -position, End: tiles.length - 1 - position };
    if (event.key === "x") return tile.querySelector("input").click();
    if (event.key === "Escape" && this.selection.size) return this.selection.clear();
    if (!(event.key in moves)) return;
    event.preventDefault();
    tiles[Math.min(tiles.length - 1, position + moves[event.key])]?.querySelector(".results-open").focus();
  }

  // Selecting

  showSelection() {
    for (const tile of this.grid.children) {
      const on = this.selection.has(tile.dataset.key);
      tile.classList.toggle("selected", on);
      tile.querySelector("input").checked = on;
    }
    const { size } = this.selection, deletable = this.selection.with("delete").length;
    this.grid.classList.toggle("selecting", size > 0);
    this.bar.hidden = !size;
    redraw(this.bar, [[...this.selection.jobs.keys()], deletable], () => [make("b", { role: "status" }, t("jobs.selected", { count: size })),
      size > MOST_ZIPPED ? make("span", { class: "help" }, t("results.too_many", { most: MOST_ZIPPED }))
        : make("a", { class: "button", download: "", href: address("/results.zip", { id: [...this.selection.jobs.keys()] }) }, icon("download"), make("span", {}, t("results.zip", { count: size }))),
      button(t("results.all"), { kind: "quiet", on: () => this.selection.all(this.jobs, true) }),
      mayChange() && deletable ? button(t("jobs.delete_selected", { count: deletable }), { icon: "trash", kind: "danger", on: () => this.remove() }) : null,
      button("", { icon: "close", label: t("jobs.select_none"), kind: "quiet", on: () => { this.selection.clear(); this.focus(this.current); } })]);
  }

  async remove() {
    if (!await act("delete", this.selection.with("delete"))) return;
    this.selection.clear();
    await this.refresh();
    if (document.activeElement === document.body) this.focus(this.current);
  }
}

/** What the parameters of an address choose. */
const chosen = (parameters) => ({ query: parameters.get("q") || "", batch: parameters.get("batch") || "", style: parameters.get("style") || "" });
const keyOf = ({ query, batch, style }) => JSON.stringify([query, batch, style]);

function fill(select, names, chosen) {
  if (chosen && !names.includes(chosen)) names = [chosen, ...names];
  select.append(...names.map((one) => make("option", { value: one, selected: one === chosen }, one)));
  select.hidden = !names.length;
}
