// The view of batches: the list with their progress, and the form for a new one (#/batches/new).
import { address, get, post } from "./api.js";
import { batchForm } from "./batch_form.js";
import { ask, button, icon, list, make, picture, setText, toast } from "./dom.js";
import { resetTargets } from "./dropping.js";
import { FAILED, imageOf, PAINTED, WAITING } from "./job_parts.js";
import { hashOf } from "./navigation.js";
import { limits, mayChange, settings, store, subscribe } from "./store.js";
import { ago, enumeration, percent, t } from "./texts.js";

/** States as a visitor thinks of them. */
const GROUPS = { done: ["done"], painting: PAINTED, waiting: [...WAITING, "retrying"], failed: FAILED, cancelled: ["cancelled"] };
const SHOWN_RESULTS = 4;
const SHEET_PAUSE = 2000, SHEET_SECONDS = 60; // milliseconds between two looks for a contact sheet; seconds until it must be there
let ends = [];

export const title = () => t("batches.title");

export async function show(place, { parts }) {
  if (parts[0] === "new") await showForm(place);
  else await showList(place);
}

export function leave() {
  ends.splice(0).forEach((end) => end());
  resetTargets();
}

async function showForm(place) {
  place.append(make("p", {}, make("a", { class: "button quiet back", href: "#/batches" }, icon("back"), t("batches.title"))), make("h1", {}, t("batches.new")));
  if (!mayChange()) return place.append(make("p", { class: "empty" }, t("frame.read_only")));
  const [info, known] = await Promise.all([settings(), limits()]);
  const form = batchForm(info, known);
  place.append(form.element);
  ends.push(form.end);
}

async function showList(place) {
  const items = make("ul", { class: "batches" });
  const start = () => make("a", { class: "button primary", href: "#/batches/new" }, icon("plus"), t("batches.new"));
  const empty = make("div", { class: "empty", hidden: true }, make("p", {}, t("batches.none")), mayChange() && start());
  place.append(make("div", { class: "heading" }, make("h1", {}, title()), mayChange() && start()), empty, items);

  let changed = null, timer = 0;
  async function refresh() {
    const { batches } = await get("/batches");
    empty.hidden = batches.length > 0;
    list(items, batches, (batch) => batch.name, build, update);
    clearTimeout(timer);
    if (batches.some(drawsSheet)) timer = setTimeout(() => refresh().catch(() => {}), SHEET_PAUSE);
  }
  ends.push(() => clearTimeout(timer));
  await refresh();
  ends.push(subscribe(({ status, connected }) => {
    if (!connected || changed === store.changed) return;
    changed = store.changed;
    refresh().catch(() => { changed = null; });
  }));
}

/** Whether the contact sheet is probably being drawn: it is finished after the last job. */
const drawsSheet = (batch) => !batch.sheet && !batch.waiting && batch.counts.done > 0 && batch.updated > Date.now() / 1000 - SHEET_SECONDS;

function build(batch) {
  const jobs = hashOf("jobs", { batch: batch.name });
  return make("li", { class: "card batch" },
    make("div", { class: "heading" }, make("h2", {}, make("a", { class: "name", href: jobs }, batch.name)), make("b", { class: "percent" })),
    make("progress", { max: 1, "aria-label": t("now.progress", { name: batch.name }) }),
    make("p", { class: "help" }),
    make("div", { class: "latest", hidden: true }),
    make("div", { class: "buttons" },
      mayChange() && button(t("batches.cancel"), { icon: "close", kind: "cancel quiet", on: () => cancel(batch.name) }),
      make("button", { type: "button", class: "button sheet", on: { click: (event) => showSheet(batch.name, event.currentTarget.dataset.version) } }, icon("batches"), t("batches.sheet")),
      make("a", { class: "button refused" }, icon("jobs"), t("batches.reason")),
      make("a", { class: "button jobs", href: jobs }, icon("jobs"), t("jobs.title"))));
}

function update(element, batch) {
  const part = (css) => element.querySelector(css);
  const sum = (group) => GROUPS[group].reduce((total, state) => total + (batch.counts[state] || 0), 0);
  const ended = sum("done") + sum("failed") + sum("cancelled");
  const all = Math.max(batch.pictures || 0, ended + sum("painting") + sum("waiting")); // some may be no jobs yet
  setText(part(".percent"), all ? percent(ended / all) : "");
  part("progress").value = all ? ended / all : 0;
  const counts = Object.keys(GROUPS).filter((group) => sum(group)).map((group) => t(`batches.count_${group}`, { count: sum(group) }));
  if (batch.refused) counts.push(t("batches.refused"));
  setText(part(".help"), `${counts.length ? enumeration(counts) : t("batches.waits")} · ${ago(batch.updated)}`);
  part(".refused").hidden = !batch.refused;
  part(".refused").href = `#/jobs/${batch.refused}`;
  part(".jobs").hidden = part("progress").hidden = Boolean(batch.refused) && !all;
  part(".sheet").hidden = !batch.sheet;
  part(".sheet").dataset.version = batch.sheet;
  if (part(".cancel")) part(".cancel").hidden = !batch.waiting && ended === all;
  if (element.dataset.done !== String(sum("done"))) {
    element.dataset.done = sum("done");
    if (sum("done")) showLatest(part(".latest"), batch).catch(() => {}); // the card is complete without them
  }
}

/** The latest results of a batch. */
async function showLatest(place, batch) {
  const { jobs } = await get("/jobs", { batch: batch.name, result: true, limit: SHOWN_RESULTS });
  place.hidden = !jobs.length;
  list(place, jobs, (job) => job.id, (job) => make("a", { href: `#/jobs/${job.id}`, title: job.title, "aria-label": job.title },
    picture(imageOf(job, "result", { size: "thumbnail", v: job.updated }))));
}

/** Cancel all jobs of a batch that have not ended, after a question. */
function cancel(name) {
  return ask({
    title: t("batches.cancel_of", { name }), body: make("p", {}, t("batches.cancel_help")), action: t("batches.cancel"), cancel: t("batches.go_on"), kind: "danger",
    async accept() {
      try {
        await post("/jobs/actions", { action: "cancel", batch: name });
      } catch (error) {
        toast("bad", error.message);
      }
    },
  });
}

function showSheet(name, version) {
  const source = address(`/batches/${encodeURIComponent(name)}/sheet`, { v: version });
  return ask({
    title: t("batches.sheet_of", { name }), wide: true, action: t("frame.close"), cancel: "",
    body: make("a", { href: source, target: "_blank", rel: "noopener" }, make("img", { class: "whole", src: source, alt: t("batches.sheet_of", { name }) })),
  });
}
