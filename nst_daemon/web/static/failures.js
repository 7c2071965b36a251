// The reasons of failures in the page's own terms, each with what helps. The words of the daemon are shown below them.

const SMALLEST = 64; // pixels

/**
 * Kinds of failures by what the daemon's message says; the first match counts. `helps`, in this order:
 * "smaller" and "float32": retry with this change; "change": retry with changed settings; "style": with another style; "masks": with other masks;
 * "retry": as it is; "again": the picture has to be uploaded again.
 */
const KINDS = [
  ["diverged", /non-finite loss|no finite loss|rollbacks/, ["float32", "change"]],
  ["memory", /not enough memory|of memory, more than|does not fit into|device is full/, ["smaller", "change", "retry"]],
  ["slow", /^not finished after/, ["smaller", "change"]],
  ["large", /the limits are|pixels are too many|cannot be written/, ["smaller", "again"]],
  ["gone", /(are|is) gone|cannot be found/, ["again"]],
  ["damaged", /damaged or truncated| is empty|non-finite pixels|fully transparent/, ["again"]],
  ["format", /not an image file|not a known format|which is not supported/, ["again"]],
  ["masks", /\bmasks?\b/, ["masks", "again"]],
  ["style", /\bstyles?\/|style .*(library|does not exist)|no style\b|the library/, ["style", "again"]],
  ["settings", /unknown (key|setting)|not allowed|out of range|must be|\.yaml/, ["change"]],
  ["weights", /\bweights\b|ONNX/, ["retry"]],
  ["disk", /free space|file system|disk/, ["retry"]],
  ["device", /the device failed|no such device|driver/, ["retry"]],
  ["unexpected", /unexpected error/, ["retry", "change"]],
];

/** The kind of a job's failure and what helps, of what the job allows. */
export function failureOf(job) {
  const [kind, , helps] = job.state === "quarantined" ? ["quarantined", null, ["smaller", "retry", "change"]]
    : KINDS.find(([, pattern]) => pattern.test(job.error)) || ["other", null, ["retry", "change"]];
  const possible = job.actions.includes("retry") ? helps : helps.filter((help) => help === "again");
  return { kind, helps: possible.filter((help) => help !== "smaller" || smaller(job) >= SMALLEST) };
}

/** The changed settings of a help. */
export const changesOf = (job, help) => ({ smaller: { size: smaller(job) }, float32: { precision: "float32" } })[help] || {};

/** Three quarters of the size of a job, a multiple of 16. */
export const smaller = (job) => Math.floor((job.settings?.size || 0) * 0.75 / 16) * 16;

/** The daemon's message without the remedy, which may name commands. */
export const causeOf = (job) => job.error.split("; ")[0];
