// Progress, speed and loss curve of a job that is being painted.
import { draw, make } from "./dom.js";
import { duration, number, percent, t } from "./texts.js";

const WIDTH = 300, HEIGHT = 90; // of the curve, in its own units

/** Elements for a PaintingInfo. */
export function paintingFacts(painting) {
  const { done, total, speed, left } = painting;
  const pace = total
    ? [t("job.iterations", { done, total }), speed ? t("job.speed", { speed: number(speed, { maximumSignificantDigits: 2 }) }) : "", left === null ? "" : t("jobs.left", { time: duration(left) })]
    : [t("job.starting")];
  return [make("div", { class: "job-progress" }, make("b", {}, percent(painting.percent / 100)),
    make("progress", { max: 100, value: painting.percent, "aria-label": t("job.progress_of", { name: painting.name }) })),
  make("p", { class: "help" }, pace.filter(Boolean).join(" · ")), curve(painting.curve)];
}

/** The loss on a log scale, as a figure; null with fewer than two points. */
export function curve(points) {
  const known = points.filter(([, loss]) => loss > 0);
  if (known.length < 2) return null;
  const logs = known.map(([, loss]) => Math.log(loss)), low = Math.min(...logs), high = Math.max(...logs);
  const first = known[0][0], last = known.at(-1)[0];
  const x = (iteration) => ((iteration - first) / (last - first || 1) * WIDTH).toFixed(1);
  const y = (log) => (HEIGHT * (1 - (log - low) / (high - low || 1))).toFixed(1);
  const line = known.map(([iteration], which) => `${which ? "L" : "M"}${x(iteration)} ${y(logs[which])}`).join("");
  const loss = number(known.at(-1)[1], { maximumSignificantDigits: 3 });
  return make("figure", { class: "job-curve" },
    draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": t("job.curve") },
      draw("path", { class: "under", d: `${line}V${HEIGHT}H0Z` }), draw("path", { d: line })),
    make("figcaption", {}, make("span", {}, t("job.loss", { loss })), make("span", {}, t("job.iteration", { number: last }))));
}
