// What lists and views of jobs share: names, states, thumbnails, and the actions with their dialogs.
import { address, ApiError, post } from "./api.js";
import { ask, icon, make, picture, toast } from "./dom.js";
import { writeValue } from "./setting_values.js";
import { limits } from "./store.js";
import { enumeration, t } from "./texts.js";

/** The states in which a job waits, is being painted, or has failed. */
export const WAITING = ["claimed", "queued"], PAINTED = ["running", "staged", "published"], FAILED = ["failed", "quarantined"];
/** The filters of the list of jobs: their states, and the order in which these are listed. */
export const FILTERS = {
  open: { states: ["inbox", ...WAITING, ...PAINTED, "retrying"], order: "queue" },
  waiting: { states: ["inbox", ...WAITING], order: "queue" },
  painting: { states: PAINTED, order: "queue" },
  retrying: { states: ["retrying"], order: "queue" },
  failed: { states: FAILED, order: "newest" },
  cancelled: { states: ["cancelled"], order: "newest" },
  done: { states: ["done"], order: "newest" },
  all: { states: [], order: "newest" },
};
const SHOWN_NAMES = 5;
const TAIL = 14; // characters of a name that are never cut

/** The state of a job as a coloured word. */
export function stateChip(job) {
  return make("span", { class: `job-state ${job.state}` }, t(`job.state_${job.state}`));
}

/** A requested action, or "". */
export const requestedText = (job) => job.requested ? t(`job.requested_${job.requested}`) : "";

/** A name in one line: where it is too long, the middle fades, and its end stays. */
export function name(text, properties = {}) {
  const characters = [...text], tail = characters.length > 2 * TAIL ? TAIL : 0;
  const head = characters.slice(0, characters.length - tail).join("");
  return make("span", { class: "job-name", title: text, dir: "auto", ...properties },
    make("span", { class: "head" }, head), tail ? make("span", { class: "tail" }, characters.slice(-tail).join("")) : null);
}

/** The name of a job; of a picture of a batch, that of its content: the line below it has the rest. */
export function heading(job) {
  const end = job.batch ? job.title.lastIndexOf(`, ${job.batch.style}`) : -1;
  return end > 0 ? job.title.slice(0, end) : job.name;
}

/**
 * Of a picture of a batch, its batch, style and swept settings: "coast · swirls · size 512"; of other jobs, their styles.
 * The style file of a pair has the name of the job, which says nothing: it is left out.
 */
export function variant(job) {
  if (!job.batch) return job.styles.filter((style) => style !== job.name.split("/").at(-1)).join(" + ");
  return [job.batch.name, job.batch.style, ...Object.entries(job.batch.swept).map(([key, value]) => `${key} ${writeValue(value)}`)].filter(Boolean).join(" · ");
}

/** The preset of a job, and its settings that differ from it. info: SettingsInfo. */
export function changedSettings(job, info) {
  const known = Object.fromEntries(info.settings.map((one) => [one.name, one.default]));
  const preset = info.presets.find((one) => one.name === job.settings.preset), usual = { ...known, ...preset?.values };
  const all = Object.entries({ ...job.settings, ...job.outputs }).filter(([key]) => key in known);
  return Object.fromEntries(all.filter(([key, value]) => key === "preset" || JSON.stringify(value) !== JSON.stringify(usual[key])));
}

/** The address of a picture of a job: "result", "preview" or "inputs/NUMBER". */
export const imageOf = (job, what, parameters) => address(`/jobs/${job.id}/${what}`, parameters);

/** A small picture of a job: its result, or else its first input. */
export function thumbnail(job, properties = {}) {
  const content = () => picture(imageOf(job, "inputs/0", { size: "thumbnail" }), { class: "job-thumb", ...properties });
  if (!job.result) return content();
  return picture(imageOf(job, "result", { size: "thumbnail", v: job.updated }), { class: "job-thumb", ...properties });
}

/** A link that saves a file of a job: "result", "sidecar", "loss-plot", "time-lapse" or "zip". */
export function download(text, job, file) {
  const href = address(`/jobs/${job.id}/${file}`, file === "zip" ? {} : { download: true });
  return make("a", { class: "button quiet", href, download: "" }, icon("download"), make("span", {}, text));
}

/** The first titles of jobs, as a list of elements. */
function titles(jobs) {
  const shown = jobs.slice(0, SHOWN_NAMES);
  const items = shown.map((job) => make("li", {}, job.title));
  if (jobs.length > shown.length) items.push(make("li", {}, t("job.more_jobs", { count: jobs.length - shown.length })));
  return make("ul", { class: "job-titles" }, items);
}

/**
 * Request an action for jobs (a list of JobInfo) or for all in some states (`states`), after a confirmation where
 * something would be lost. Returns whether it was requested. It shows problems itself.
 */
export async function act(action, jobs, { states = [], number = jobs.length, more = {} } = {}) {
  if (action === "priority" && more.priority === undefined) {
    const priority = await askPriority(jobs);
    if (priority === null) return false;
    more = { priority };
  }
  if (action === "delete" && !await confirmDelete(jobs)) return false;
  if (action === "cancel" && number > 1 && !await confirmMany("cancel", jobs, number)) return false;
  if (action === "retry" && states.length && !await confirmMany("retry", jobs, number)) return false;
  const body = { action, ...(states.length ? { states } : { ids: jobs.map((job) => job.id) }), ...more };
  try {
    const result = await post("/jobs/actions", body);
    report(action, result);
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    toast("bad", sentence(error));
    return false;
  }
}

/** An error of the API as one text. */
export const sentence = (error) => error.message;

function report(action, { requested, problems }) {
  if (problems.length) {
    const reasons = [...new Set(problems.map((problem) => problem.error))].slice(0, 3);
    toast("bad", t("job.not_requested", { count: problems.length, reasons: enumeration(reasons) }));
  }
  if (requested.length) toast("good", t(`job.done_${action}`, { count: requested.length }));
}

const confirmMany = (action, jobs, number) => ask({
  title: t(`job.confirm_${action}`, { count: number }),
  body: jobs.length ? titles(jobs) : make("p", {}, t(`job.confirm_${action}_all`)),
  action: t(`job.do_${action}`),
  cancel: t("job.keep"),
  kind: action === "cancel" ? "danger" : "primary",
});

function confirmDelete(jobs) {
  const results = jobs.filter((job) => job.result);
  const removed = [
    results.length ? make("li", {}, t("job.delete_results", { count: results.length })) : null,
    make("li", {}, t("job.delete_inputs", { count: jobs.length })),
  ];
  return ask({
    title: t("job.confirm_delete", { count: jobs.length }),
    body: [titles(jobs), make("p", {}, t("job.delete_removes")), make("ul", {}, removed), make("p", {}, t("job.delete_keeps"))],
    action: t("job.do_delete"),
    cancel: t("job.keep"),
    kind: "danger",
  });
}

/** The priority that was chosen for jobs; null if the dialog was cancelled. */
async function askPriority(jobs) {
  const { max_priority: most } = await limits();
  const field = make("input", { id: "job-priority", type: "number", step: 1, min: -most, max: most, value: jobs[0].priority, required: true, "aria-describedby": "job-priority-help" });
  const accepted = await ask({
    title: t("job.priority_title", { count: jobs.length }),
    body: [titles(jobs), make("label", { for: "job-priority" }, t("job.priority")), field, make("p", { id: "job-priority-help", class: "help" }, t("job.priority_help", { most }))],
    action: t("job.do_priority"),
    cancel: t("job.dismiss"),
    accept: () => field.reportValidity(),
  });
  return accepted ? field.valueAsNumber : null;
}
