// The list of jobs: filters by state, search, pages, and actions for one or several jobs.
import { get } from "./api.js";
import { announce, button, list, make, redraw, rove, searchField, setText } from "./dom.js";
import { causeOf, failureOf } from "./failures.js";
import { act, FILTERS, heading, imageOf, name, requestedText, sentence, stateChip, thumbnail, variant } from "./job_parts.js";
import { hashOf, keepAddress } from "./navigation.js";
import { retryWithChanges } from "./repeat.js";
import { Selection } from "./selection.js";
import { mayChange, store, subscribe, whenChanged } from "./store.js";
import { ago, date, duration, number, percent, t } from "./texts.js";

const ROWS = 100; // of one page
const PRIORITY_STEP = 10;
/** Actions of a row, with their icons. */
const ROW_ACTIONS = { cancel: "close", retry: "retry", delete: "trash" };

let view = null, remembered = null; // where the list was when it was left

export const title = () => t("jobs.title");

/** Show the list; parameters of the address: filter, q, batch. */
export function show(place, { query }) {
  view = new JobsView(place, query);
  return view.shown;
}

/** The address of the list as it was shown last. */
export const latestAddress = () => remembered?.address || "#/jobs";

export function leave() {
  view?.end();
  view = null;
}

class JobsView {
  constructor(place, parameters) {
    const filter = parameters.get("filter");
    this.filter = filter in FILTERS ? filter : "open";
    this.query = parameters.get("q") || "";
    this.batch = parameters.get("batch") || "";
    this.cursors = [""]; // of the pages up to the one that is shown
    this.page = { jobs: [], next: "", total: 0 };
    this.current = ""; // the row that has the focus or had it last
    this.loaded = false;
    this.selection = new Selection(() => this.showSelection());
    this.build(place);
    this.ends = [subscribe(() => this.follow()), whenChanged(() => this.load())];
    this.shown = this.restore();
  }

  end() {
    remembered = { key: this.key(), address: this.address(), cursors: this.cursors, current: this.current, top: scrollY };
    for (const end of this.ends) end();
    this.request?.abort();
  }

  build(place) {
    this.filters = make("div", { class: "jobs-filters", role: "group", "aria-label": t("jobs.filters") });
    this.search = searchField({ id: "jobs-search", value: this.query, label: t("jobs.search"), search: (query) => this.choose({ query }) });
    this.batchNote = make("p", { class: "jobs-batch", hidden: true });
    this.every = make("input", { type: "checkbox", id: "jobs-every", on: { change: () => this.selection.all(this.page.jobs, this.every.checked) } });
    this.count = make("span", { class: "jobs-count" });
    this.everyAction = make("span", { class: "jobs-every-action" });
    this.head = make("div", { class: "jobs-head", hidden: true },
      mayChange() ? make("label", { class: "jobs-every" }, this.every, make("span", {}, t("jobs.select_page"))) : null, this.count, this.everyAction);
    this.rows = make("ul", { class: "jobs-rows", "aria-label": t("jobs.title"), on: { keydown: (event) => this.move(event), focusin: (event) => this.focused(event) } });
    this.empty = make("div", { class: "jobs-empty", hidden: true });
    this.pager = make("nav", { class: "jobs-pager", "aria-label": t("jobs.pages"), hidden: true });
    this.bar = make("div", { class: "jobs-selected", role: "region", "aria-label": t("jobs.selection"), hidden: true });
    this.place = place;
    place.classList.add("jobs");
    place.append(make("div", { class: "jobs-top" }, make("h1", { tabIndex: -1 }, t("jobs.title")), this.search), this.filters, this.batchNote, this.head, this.rows, this.empty, this.pager, this.bar);
    this.showFilters();
    this.showBatch();
  }

  // Loading

  key() { return JSON.stringify([this.filter, this.query, this.batch]); }

  /** Show the page and the place that were shown before another view. */
  async restore() {
    if (remembered?.key !== this.key()) return this.load();
    const { cursors, current, top } = remembered;
    Object.assign(this, { cursors, current });
    await this.load();
    scrollTo({ top, behavior: "instant" });
  }

  parameters() {
    const { states, order } = FILTERS[this.filter];
    return { state: states, order, q: this.query, batch: this.batch, cursor: this.cursors.at(-1), limit: ROWS };
  }

  /** Request the page that is shown. An older request is given up. */
  async load() {
    this.request?.abort();
    const request = this.request = new AbortController();
    try {
      const page = await get("/jobs", this.parameters(), { signal: request.signal });
      if (!page.jobs.length && this.cursors.length > 1) { // its jobs have left the list
        this.cursors.pop();
        return await this.load();
      }
      this.page = page;
      this.selection.refresh(page.jobs);
      this.loaded = true;
      this.draw();
    } catch (error) {
      if (request.signal.aborted) return;
      this.fail(error);
    }
  }

  fail(error) {
    this.empty.hidden = false;
    redraw(this.empty, ["error", error.message], () => [make("p", { class: "problem", role: "alert" }, sentence(error)), button(t("jobs.again"), { icon: "retry", on: () => this.load() })]);
  }

  /** The state of the daemon has changed. */
  follow() {
    this.showFilters();
    for (const row of this.rows.children) this.showProgress(row);
  }

  /** Show the first page of another list. */
  choose({ filter = this.filter, query = this.query, batch = this.batch }) {
    Object.assign(this, { filter, query, batch, cursors: [""] });
    this.selection.clear();
    keepAddress(this.address()); // so that Back and bookmarks show this list again
    this.showFilters();
    this.showBatch();
    return this.load();
  }

  address() {
    return hashOf("jobs", { filter: this.filter, q: this.query, batch: this.batch });
  }

  async turn(cursors) {
    this.cursors = cursors;
    await this.load();
    this.place.querySelector("h1").focus({ preventScroll: true });
    scrollTo({ top: 0 });
    announce(this.position());
  }

  // Showing

  draw() {
    const { jobs, total } = this.page;
    this.head.hidden = !jobs.length;
    setText(this.count, total > jobs.length ? this.position() : t("jobs.count", { count: total }));
    const focused = this.rows.contains(document.activeElement);
    list(this.rows, jobs, (job) => job.id, () => make("li", { class: "jobs-row" }), (row, job) => this.showRow(row, job));
    if (focused) this.refocus(); // the last row has left the list
    this.rove();
    this.empty.hidden = jobs.length > 0;
    if (!jobs.length) redraw(this.empty, [this.filter, this.query, this.batch], () => this.nothing());
    this.showPager();
    this.showEveryAction();
    this.showSelection();
  }

  nothing() {
    const search = this.query || this.batch;
    const text = search ? t("jobs.no_matches") : t(`jobs.none_${this.filter}`);
    return [make("p", {}, text),
      search ? button(t("jobs.clear_search"), { on: () => { this.search.value = ""; this.choose({ query: "", batch: "" }); } }) : null,
      this.filter === "open" || this.filter === "all" ? make("a", { class: "button primary", href: "#/" }, t("jobs.paint")) : null,
      this.filter !== "all" ? button(t("jobs.show_all"), { on: () => this.choose({ filter: "all" }) }) : null];
  }

  position() {
    const from = (this.cursors.length - 1) * ROWS;
    return t("jobs.position", { from: from + 1, to: from + this.page.jobs.length, total: this.page.total });
  }

  showFilters() {
    const counts = store.status?.counts;
    list(this.filters, Object.keys(FILTERS), (key) => key,
      (key) => make("button", { type: "button", class: "jobs-filter", on: { click: () => this.choose({ filter: key }) } }, make("span", {}, t(`jobs.filter_${key}`)), make("small", {})),
      (element, key) => {
        element.setAttribute("aria-pressed", String(key === this.filter));
        const { states } = FILTERS[key];
        if (counts) setText(element.lastChild, number((states.length ? states : Object.keys(counts)).reduce((sum, state) => sum + (counts[state] || 0), 0)));
      });
    const shown = `${this.filter} ${Boolean(counts)}`;
    if (this.shownFilter === shown) return;
    this.shownFilter = shown;
    const pressed = this.filters.querySelector("[aria-pressed=true]"); // on a phone, the filters are scrolled sideways
    this.filters.scrollLeft = pressed.offsetLeft - this.filters.offsetLeft - (this.filters.clientWidth - pressed.offsetWidth) / 2;
  }

  showBatch() {
    this.batchNote.hidden = !this.batch;
    if (this.batch) redraw(this.batchNote, this.batch, () => [make("span", {}, t("jobs.of_batch", { name: this.batch })), button("", { icon: "close", label: t("jobs.all_batches"), kind: "quiet", on: () => this.choose({ batch: "" }) })]);
  }

  showPager() {
    const first = this.cursors.length === 1;
    this.pager.hidden = first && !this.page.next;
    redraw(this.pager, [this.cursors, this.page.next, this.page.total], () => [
      button(t("jobs.first"), { disabled: first, on: () => this.turn([""]) }),
      button(t("jobs.previous"), { icon: "back", disabled: first, on: () => this.turn(this.cursors.slice(0, -1)) }),
      make("span", {}, this.position()),
      button(t("jobs.next"), { icon: "forward", disabled: !this.page.next, on: () => this.turn([...this.cursors, this.page.next]) })]);
  }

  /** A button for all jobs of a filter, where that is useful. */
  showEveryAction() {
    const action = { failed: "retry", waiting: "cancel" }[this.filter], total = this.page.total;
    const useful = action && mayChange() && total > 1 && !this.query && !this.batch;
    redraw(this.everyAction, useful ? [action, total] : null, () => useful ? button(t(`jobs.${action}_all`, { count: total }), {
      icon: ROW_ACTIONS[action], kind: "quiet",
      on: () => this.perform(action, [], { states: FILTERS[this.filter].states.filter((state) => state !== "inbox"), number: total }),
    }) : null);
  }

  showRow(row, job) {
    row.job = job;
    redraw(row, [job, mayChange()], () => this.parts(job));
    this.showProgress(row);
    this.mark(row);
  }

  parts(job) {
    const change = mayChange(), title = `jobs-${job.id}`;
    const select = change ? make("label", { class: "jobs-select" }, make("input", {
      type: "checkbox", "aria-label": t("jobs.select", { name: job.title }),
      on: { click: (event) => this.selection.toggle(job, event.target.checked, this.page.jobs, event.shiftKey) },
    })) : null;
    const text = make("div", { class: "jobs-text" },
      make("a", { class: "jobs-title", id: title, href: `#/jobs/${job.id}`, "aria-label": job.title }, name(heading(job)), make("small", { class: "jobs-variant" }, variant(job))),
      make("p", { class: "jobs-facts" }, stateChip(job), job.requested ? make("span", { class: "jobs-requested" }, requestedText(job)) : null,
        make("span", { class: "jobs-progress" }), make("time", { title: date(job.updated), dateTime: new Date(job.updated * 1000).toISOString() }, when(job)),
        job.attempts > 1 ? make("span", {}, t("jobs.attempts", { count: job.attempts })) : null),
      make("progress", { class: "jobs-done", max: 100, hidden: true, "aria-label": t("job.progress_of", { name: job.title }) }),
      job.error && job.state !== "done" ? make("p", { class: "jobs-error" }, make("b", {}, t(`job.failure_${failureOf(job).kind}`)), " ", causeOf(job)) : null);
    return [select, make("a", { class: "jobs-face", href: `#/jobs/${job.id}`, tabIndex: -1, "aria-hidden": "true" }, thumbnail(job)), text,
      make("div", { class: "jobs-actions" }, change ? [priority(job, (value) => this.perform("priority", [job], value === null ? {} : { more: { priority: value } })), ...this.actions(job)] : null)];
  }

  actions(job) {
    return Object.entries(ROW_ACTIONS).filter(([action]) => job.actions.includes(action)).map(([action, shape]) =>
      button("", { icon: shape, kind: "quiet", label: t(`jobs.${action}_one`, { name: job.title }), on: () => this.perform(action, [job]) }));
  }

  showProgress(row) {
    const painting = store.status?.paintings.find((one) => one.id === row.job.id);
    const place = row.querySelector(".jobs-progress"), bar = row.querySelector("progress");
    bar.hidden = !painting;
    bar.value = painting ? painting.percent : 0;
    setText(place, !painting ? (row.job.state === "running" ? t("jobs.preparing") : "") : [percent(painting.percent / 100), painting.left === null ? "" : t("jobs.left", { time: duration(painting.left) })].filter(Boolean).join(" · "));
    if (painting?.preview && row.dataset.preview !== String(painting.preview)) {
      row.dataset.preview = painting.preview;
      const face = row.querySelector(".jobs-face img");
      if (face) face.src = imageOf(row.job, "preview", { v: painting.preview });
    }
  }

  // Selecting

  mark(row) {
    const on = this.selection.has(row.job.id), box = row.querySelector("input");
    row.classList.toggle("selected", on);
    if (box) box.checked = on;
  }

  showSelection() {
    for (const row of this.rows.children) this.mark(row);
    const shown = this.page.jobs.filter((job) => this.selection.has(job.id)).length;
    this.every.checked = shown > 0 && shown === this.page.jobs.length;
    this.every.indeterminate = shown > 0 && shown < this.page.jobs.length;
    this.bar.hidden = !this.selection.size;
    const counts = ["cancel", "retry", "priority", "delete"].map((action) => [action, this.selection.with(action).length]);
    redraw(this.bar, [this.selection.size, counts], () => [
      make("b", { role: "status" }, t("jobs.selected", { count: this.selection.size })),
      ...counts.filter(([, count]) => count).map(([action, count]) => button(t(`jobs.${action}_selected`, { count }), {
        icon: { ...ROW_ACTIONS, priority: "up" }[action], kind: action === "delete" ? "danger" : "", on: () => this.perform(action, this.selection.with(action)),
      })),
      this.selection.with("retry").length ? button(t("jobs.retry_changed"), { on: () => this.retryChanged() }) : null,
      button("", { icon: "close", label: t("jobs.select_none"), kind: "quiet", on: () => { this.selection.clear(); this.refocus(); } })]);
  }

  async perform(action, jobs, options = {}) {
    if (!await act(action, jobs, options)) return;
    if (jobs.length > 1 || this.selection.has(jobs[0]?.id)) this.selection.clear();
    await this.load();
    this.refocus();
  }

  async retryChanged() {
    if (!await retryWithChanges(this.selection.with("retry"))) return;
    this.selection.clear();
    await this.load();
    this.refocus();
  }

  // Keyboard: one row is in the order of the Tab key

  /** The row that has the focus or had it last. */
  get currentRow() {
    return [...this.rows.children].find((row) => row.dataset.key === this.current) || this.rows.firstElementChild;
  }

  rove() {
    rove(this.rows.children, this.currentRow);
  }

  focused(event) {
    const row = event.target.closest(".jobs-row");
    if (!row || row.dataset.key === this.current) return;
    this.current = row.dataset.key;
    this.rove();
  }

  /** The element with the focus has gone: its row gets it, or else the heading. */
  refocus() {
    if (document.activeElement !== document.body) return;
    (this.currentRow?.querySelector(".jobs-title") || this.place.querySelector("h1")).focus();
  }

  /** Arrow keys move between rows; x selects; Escape clears the selection. */
  move(event) {
    const row = event.target.closest(".jobs-row");
    if (!row || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=number]")) return;
    if (event.key === "x" && row.querySelector("input")) row.querySelector("input").click();
    if (event.key === "Escape" && this.selection.size) this.selection.clear();
    const other = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling, Home: this.rows.firstElementChild, End: this.rows.lastElementChild }[event.key];
    if (!other) return;
    event.preventDefault();
    other.querySelector(".jobs-title").focus();
  }
}

const when = (job) => t(`jobs.when_${{ done: "ended", failed: "ended", quarantined: "ended", cancelled: "ended", running: "since", staged: "since", published: "since" }[job.state] || "waiting"}`,
  { time: ago({ queued: job.created, claimed: job.created, inbox: job.created }[job.state] ?? job.updated) });

/** The priority of a job, with buttons that raise and lower it; choose(null) asks for a number. */
function priority(job, choose) {
  if (!job.actions.includes("priority")) return null;
  return make("span", { class: "jobs-priority", role: "group", "aria-label": t("job.priority") },
    make("small", { "aria-hidden": "true" }, t("job.priority")),
    button("", { icon: "minus", kind: "quiet", label: t("jobs.lower", { name: job.title }), on: () => choose(job.priority - PRIORITY_STEP) }),
    make("button", { type: "button", class: "button quiet", title: t("job.priority_change"), "aria-label": t("jobs.priority_of", { name: job.title, priority: job.priority }), on: { click: () => choose(null) } }, number(job.priority)),
    button("", { icon: "plus", kind: "quiet", label: t("jobs.raise", { name: job.title }), on: () => choose(job.priority + PRIORITY_STEP) }));
}
