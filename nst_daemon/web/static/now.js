// What the daemon is doing: paintings with their live preview, what comes next, what waits in the inbox, the latest results.
import { address, get, post } from "./api.js";
import { announce, button, draw, icon, list, make, picture, redraw, setText, toast } from "./dom.js";
import { mayChange, store, subscribe } from "./store.js";
import { ago, duration, number, percent, t } from "./texts.js";

const CURVE = { width: 300, height: 80 };
const SHOWN_NEXT = 4, SHOWN_RESULTS = 6;
const QUEUED = ["claimed", "queued", "retrying"];

/** {element, end()}: kept up to date until end(). */
export function nowPainting() {
  const paintings = make("div", { class: "paintings" });
  const idle = make("p", { class: "empty" });
  const waits = make("ol", { class: "lines" }), more = make("a", { class: "help", href: "#/jobs" }), time = make("p", { class: "help" });
  const queue = make("section", { class: "card", hidden: true, "aria-labelledby": "now-next" }, make("h2", { id: "now-next" }, t("now.next")), waits, more, time);
  const inboxLines = make("ul", { class: "lines" });
  const inbox = make("section", { class: "card", hidden: true, "aria-labelledby": "now-inbox" }, make("h2", { id: "now-inbox" }, t("now.inbox")), inboxLines);
  const tiles = make("div", { class: "latest" });
  const latest = make("section", { hidden: true, "aria-labelledby": "now-latest" },
    make("div", { class: "heading" }, make("h2", { id: "now-latest" }, t("now.latest")), make("a", { href: "#/results" }, t("now.all_results"))), tiles);
  const element = make("aside", { class: "now", id: "now", "aria-labelledby": "now-title" },
    make("h2", { id: "now-title" }, t("now.title")), paintings, idle, queue, inbox, latest);

  let changed = null;
  const unsubscribe = subscribe(({ status, connected }) => {
    if (!connected) return;
    list(paintings, status.paintings, (painting) => painting.id, build, update);
    idle.hidden = status.paintings.length > 0;
    const queued = QUEUED.reduce((sum, name) => sum + (status.counts[name] || 0), 0);
    const busy = queued || status.counts.running;
    setText(idle, status.state === "resting" || status.state === "paused" ? status.reason || t(`state.${status.state}`) : t(busy ? "now.prepared" : "now.idle"));
    setText(time, queued && status.queue_seconds ? t("now.queue_time", { time: duration(status.queue_seconds) }) : "");
    showInbox(status.inbox);
    if (changed !== store.changed) {
      changed = store.changed;
      refresh().catch(() => { changed = null; });
    }
  });

  async function refresh() {
    const [next, done] = await Promise.all([get("/jobs", { order: "queue", state: QUEUED, limit: SHOWN_NEXT }), get("/jobs", { result: true, limit: SHOWN_RESULTS })]);
    queue.hidden = !next.jobs.length;
    list(waits, next.jobs, (job) => job.id, () => make("li", {}, make("a", { class: "name" }), make("small", { class: "help" })), (line, job) => {
      const [link, note] = line.children;
      link.href = `#/jobs/${job.id}`;
      setText(link, job.title);
      setText(note, job.state === "retrying" ? t("now.retrying", { error: job.error }) : t("now.since", { ago: ago(job.created) }));
    });
    more.hidden = next.total <= next.jobs.length;
    setText(more, t("now.more", { count: next.total - next.jobs.length }));
    latest.hidden = !done.jobs.length;
    list(tiles, done.jobs, (job) => job.id, (job) => make("a", { href: `#/jobs/${job.id}`, title: job.title, "aria-label": job.title },
      picture(address(`/jobs/${job.id}/result`, { size: "thumbnail", v: job.updated }))));
  }

  function showInbox(found) {
    const lines = found ? [
      ...found.waiting.map((drop) => ({ name: drop.files[0] || drop.name, texts: [drop.cause, drop.remedy, drop.left === null ? "" : t("now.given_up", { left: duration(drop.left) })], left: drop.left })),
      ...found.settling.map((name) => ({ name, texts: [t("now.settling")] })),
      ...Object.entries(found.left_alone).map(([name, reason]) => ({ name, texts: [reason] })),
      ...found.notes.map((note) => ({ name: "", texts: [note] })),
      ...(found.more ? [{ name: "", texts: [t("now.more", { count: found.more })] }] : []),
    ] : [];
    inbox.hidden = !lines.length;
    redraw(inboxLines, lines, () => lines.map(({ name, texts }) => make("li", {}, name && make("b", { class: "name" }, name), ...texts.filter(Boolean).map((text) => make("small", { class: "help" }, text)))));
  }

  return { element, end: unsubscribe };
}

function build(painting) {
  const card = make("article", { class: "painting card", "aria-label": painting.name },
    make("div", { class: "canvases" },
      make("figure", { class: "source" }, make("div", { class: "canvas" }), make("figcaption", {}, t("now.content"))),
      make("figure", {}, make("div", { class: "canvas live" }, make("span", { class: "help" }, t("now.no_preview"))), make("figcaption", {}, t("now.preview")))),
    make("div", { class: "heading" }, make("h3", {}, make("a", { class: "name", href: `#/jobs/${painting.id}` }, painting.name)), make("b", { class: "percent" })),
    make("progress", { max: 100, "aria-label": t("now.progress", { name: painting.name }) }),
    make("div", { class: "pace" }, make("b", { class: "left" }), make("span", { class: "help" })),
    make("figure", { class: "curve" }),
    mayChange() && make("div", { class: "buttons" }, button(t("now.cancel"), { icon: "close", kind: "cancel", on: () => cancel(card, painting) })));
  showContent(card, painting);
  return card;
}

/** The content, as a small picture. */
async function showContent(card, painting) {
  const source = card.querySelector(".source");
  try {
    const job = await get(`/jobs/${painting.id}`);
    setText(card.querySelector("h3 a"), job.title);
    const which = job.inputs.findIndex((input) => input.role === "content" && input.available);
    if (which < 0) return source.remove();
    source.querySelector(".canvas").replaceChildren(picture(address(`/jobs/${painting.id}/inputs/${which}`, { size: "view" }), { alt: t("now.content_of", { name: painting.name }), loading: "eager" }));
  } catch { source.remove(); }
}

function update(card, painting) {
  const part = (css) => card.querySelector(css);
  setText(part(".percent"), percent(painting.percent / 100));
  part("progress").value = painting.percent;
  setText(part(".left"), painting.total && painting.done === painting.total ? t("job.state_staged") : painting.left !== null ? t("now.left", { time: duration(painting.left) }) : painting.total ? "" : t("now.starting"));
  setText(part(".pace .help"), painting.total ? [t("now.iterations", { done: painting.done, total: painting.total }), painting.speed ? t("now.speed", { speed: number(painting.speed, { maximumSignificantDigits: 2 }) }) : "",
    store.status.workers.length > 1 ? painting.worker : ""].filter(Boolean).join(" · ") : painting.worker);
  redraw(part(".curve"), painting.curve, () => curve(painting.curve));
  showPreview(part(".live"), painting);
}

/** The old preview stays until the new one is there. */
function showPreview(canvas, painting) {
  if (!painting.preview || canvas.dataset.version === String(painting.preview)) return;
  canvas.dataset.version = painting.preview;
  const image = make("img", { alt: t("now.preview_of", { name: painting.name }), src: address(`/jobs/${painting.id}/preview`, { v: painting.preview }) });
  image.addEventListener("load", () => { if (canvas.dataset.version === String(painting.preview)) canvas.replaceChildren(image); });
}

async function cancel(card, painting) {
  const asked = card.querySelector(".cancel");
  asked.disabled = true;
  try {
    await post("/jobs/actions", { action: "cancel", ids: [painting.id] });
    announce(t("now.cancelled", { name: painting.name }));
  } catch (error) {
    asked.disabled = false;
    toast("bad", error.message);
  }
}

/** The loss on a logarithmic scale, with its last value. */
export function curve(points) {
  const known = points.filter(([, loss]) => loss > 0);
  if (known.length < 2) return [];
  const logs = known.map(([, loss]) => Math.log(loss)), low = Math.min(...logs), high = Math.max(...logs);
  const first = known[0][0], last = known.at(-1)[0];
  const x = (iteration) => ((iteration - first) / (last - first || 1) * CURVE.width).toFixed(1);
  const y = (log) => (CURVE.height * (1 - (log - low) / (high - low || 1))).toFixed(1);
  const line = known.map(([iteration], place) => `${place ? "L" : "M"}${x(iteration)} ${y(logs[place])}`).join("");
  return [
    draw("svg", { viewBox: `0 0 ${CURVE.width} ${CURVE.height}`, preserveAspectRatio: "none", role: "img", "aria-label": t("now.curve") },
      draw("path", { class: "under", d: `${line}V${CURVE.height}H0Z` }), draw("path", { d: line })),
    make("figcaption", {}, make("span", {}, t("now.loss", { loss: number(known.at(-1)[1], { maximumSignificantDigits: 3 }) })), make("span", {}, t("now.iteration", { iteration: last }))),
  ];
}
