"use strict";
// Names, contents of files and errors are set as text, never as HTML.
const $ = (id) => document.getElementById(id);
const PAUSE = 1500, HIDDEN_PAUSE = 15000; // milliseconds between two requests
const LONGEST_SIDE_OF_CURVE = 300, HEIGHT_OF_CURVE = 90;

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
};
const draw = (tag, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const shown = (src, className) => { // decorative: the text next to it says the same
  const image = make("img", { className, src, alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(make("span", { className, textContent: "?" })));
  return image;
};
const time = (seconds) => clock(new Date(seconds * 1000));

// Only what has changed is redrawn, so that hover, focus and selection are kept.
const drawn = new Map();
function redraw(place, values, ...children) {
  const text = JSON.stringify(values);
  if (drawn.get(place) === text) return;
  drawn.set(place, text);
  place.replaceChildren(...children.map((child) => child()));
}

// Status

let limit = Infinity; // largest picture in bytes
function show(data) {
  limit = data.max_bytes;
  for (const id of ["content", "style"]) $(id).accept = data.suffixes.join();
  const { status } = data, { live, jobs } = status;
  const state = !status.running ? "away" : live ? live.state : "loading";
  $("state").dataset.state = state;
  const names = { away: "not running", resting: "outside active hours", lost: "no device" };
  $("state").textContent = names[state] || state;
  const reason = live && live.reason ? live.reason : "";
  $("headline").textContent = state === "away" ? "The daemon is not running. Start it with nst-daemon run." : reason;
  $("counts").textContent = ["queued", "running", "retrying", "done", "failed", "quarantined"]
    .filter((name) => jobs[name]).map((name) => `${jobs[name]} ${name}`).join(" · ");
  const paintings = live ? live.paintings : [];
  document.title = (paintings.length ? `${paintings[0].percent} % ${paintings[0].name} · ` : "") + "nst-daemon";
  showPaintings(paintings, data.previews);
  $("idle").hidden = paintings.length > 0;
  $("idle").textContent = status.next.length ? "The next picture is being prepared." : "No picture is being painted.";
  showList("next", status.next, (job) => entry(job.name, note(job, status.asked)));
  showList("arriving", inbox(status.inbox), ([name, ...what]) => entry(name, ...what));
  showList("failed", status.failed, (job) => entry(job.name, job.error, `${job.state === "failed" ? "" : `${job.state}, `}${time(job.updated)}`,
    status.asked[job.id] ? `${status.asked[job.id]} requested` : make("code", { textContent: `nst-daemon retry ${job.id.slice(0, 8)}` })));
  showResults(status.done);
  showStyles(data.styles, data.style_problems);
}

/** What lies in the inbox, as lists of a name and lines about it. */
function inbox(found) {
  if (!found) return [];
  const more = Object.values(found.more).reduce((sum, number) => sum + number, 0);
  return [
    ...found.waiting.map((drop) => [drop.files[0] || drop.name, drop.cause, drop.remedy]),
    ...found.settling.map((path) => [path, "still arriving"]),
    ...Object.entries(found.left_alone).map(([path, reason]) => [path, reason]),
    ...(more ? [[`${more} more`]] : []),
    ...found.notes.map((note) => ["note", note]),
  ];
}

const entry = (name, ...lines) =>
  make("li", {}, make("b", { textContent: name, title: name }), ...lines.filter(Boolean).map((line) => make("p", {}, typeof line === "string" ? make("small", { textContent: line }) : line)));
const note = (job, asked) =>
  asked[job.id] ? `${asked[job.id]} requested`
    : job.state === "running" ? "being prepared"
      : job.state === "retrying" ? `will be retried: ${job.error}`
        : `queued since ${time(job.created)}${job.priority ? `, priority ${job.priority}` : ""}`;

function showList(id, items, row) {
  $(id).hidden = !items.length;
  redraw($(id).querySelector(".list"), items, ...items.map((item) => () => row(item)));
}

function showPaintings(paintings, previews) {
  const cards = new Map([...$("paintings").children].map((card) => [card.dataset.id, card]));
  for (const [id, card] of cards) if (!paintings.some((painting) => painting.id === id)) card.remove();
  for (const painting of paintings) {
    let card = cards.get(painting.id);
    if (!card) $("paintings").append(card = paintingCard(painting));
    const part = (name) => card.querySelector(name);
    part(".percent").textContent = `${painting.percent} %`;
    part("progress").value = painting.percent;
    part(".pace").textContent = painting.total
      ? [`${painting.done} of ${painting.total} iterations`, painting.speed ? rate(painting.speed) : "", painting.left !== null ? `${duration(Math.round(painting.left))} left` : ""].filter(Boolean).join(" · ")
      : "starting";
    redraw(part(".curve"), painting.curve, ...curve(painting.curve));
    showPreview(part(".canvas"), painting, previews[painting.id]);
  }
}

const paintingCard = (painting) => {
  const card = make("article", { className: "painting" },
    make("div", { className: "canvas", textContent: "No preview yet" }),
    make("div", { className: "facts" },
      make("h3", { textContent: painting.name }), make("span", { className: "percent" }),
      make("progress", { max: 100, ariaLabel: `Progress of ${painting.name}` }), make("p", { className: "pace" }), make("p", { textContent: `on ${painting.worker}` }),
      make("figure", { className: "curve" })));
  card.dataset.id = painting.id;
  return card;
};

function showPreview(canvas, painting, version) {
  if (!version || canvas.dataset.version === String(version)) return;
  canvas.dataset.version = version;
  const image = make("img", { alt: `${painting.name}, current state`, src: `/jobs/${painting.id}/preview?${version}` });
  image.addEventListener("load", () => canvas.replaceChildren(image)); // the old image stays until then
}

function curve(points) {
  const known = points.filter(([, loss]) => loss > 0);
  if (known.length < 2) return [];
  const logs = known.map(([, loss]) => Math.log(loss)), low = Math.min(...logs), high = Math.max(...logs);
  const first = known[0][0], last = known.at(-1)[0];
  const x = (iteration) => ((iteration - first) / (last - first || 1) * LONGEST_SIDE_OF_CURVE).toFixed(1);
  const y = (log) => (HEIGHT_OF_CURVE * (1 - (log - low) / (high - low || 1))).toFixed(1);
  const line = known.map(([iteration], i) => `${i ? "L" : "M"}${x(iteration)} ${y(logs[i])}`).join("");
  return [
    () => draw("svg", { viewBox: `0 0 ${LONGEST_SIDE_OF_CURVE} ${HEIGHT_OF_CURVE}`, preserveAspectRatio: "none", role: "img", "aria-label": "Loss curve on a log scale" },
      draw("path", { class: "under", d: `${line}V${HEIGHT_OF_CURVE}H0Z` }), draw("path", { d: line })),
    () => make("figcaption", {}, make("span", { textContent: `loss ${known.at(-1)[1].toPrecision(3)}` }), make("span", { textContent: `iteration ${last}` })),
  ];
}

// Results

function showResults(done) {
  $("none").hidden = done.length > 0;
  redraw($("tiles"), done.map((job) => job.id), ...done.map((job) => () => tile(job)));
}

const tile = (job) => {
  const button = make("button", { type: "button", className: "tile", title: job.result },
    shown(`/jobs/${job.id}/thumbnail`, "face"),
    make("span", { className: "text" }, make("b", { textContent: title(job) }), make("small", { textContent: time(job.updated) })));
  button.addEventListener("click", () => open(job));
  return button;
};
const title = (job) => job.result.replace(/\.[^.]*$/, "");

function open(job) {
  $("view-title").textContent = title(job);
  $("view-facts").textContent = time(job.updated);
  const address = `/jobs/${job.id}`;
  const beside = (what, caption) => {
    const figure = make("figure", {}, make("img", { src: `${address}/${what}`, alt: caption }), make("figcaption", { textContent: caption }));
    figure.firstChild.addEventListener("error", () => figure.remove()); // the file may not exist
    return figure;
  };
  const whole = make("img", { src: `${address}/result`, alt: `${title(job)}, in full size` });
  whole.addEventListener("error", () => { whole.src = `${address}/view`; }, { once: true }); // the browser cannot show TIFF
  $("view-body").replaceChildren(
    make("a", { href: `${address}/result`, target: "_blank", rel: "noopener" }, whole),
    make("div", { className: "pair" }, beside("lapse", "Time-lapse"), beside("curve", "Loss curve")));
  $("view").showModal();
  $("view").scrollTop = 0;
}
$("close").addEventListener("click", () => $("view").close());

// Upload

function showStyles(styles, problems) {
  const chosen = document.querySelector("input[name=library]:checked");
  const own = document.querySelector(".style.own");
  const text = JSON.stringify([styles, problems]);
  if (drawn.get(own) === text) return;
  drawn.set(own, text);
  document.querySelectorAll(".style:not(.own)").forEach((label) => label.remove());
  for (const [name, version] of Object.entries(styles)) {
    const face = shown(`/styles/${encodeURIComponent(name)}?${version}`, "face");
    const radio = make("input", { type: "radio", name: "library", value: name, checked: chosen.value === name });
    $("styles").append(make("label", { className: "style", title: name }, radio, face, make("span", { className: "name", textContent: name })));
  }
  for (const [name, problem] of Object.entries(problems))
    $("styles").append(make("label", { className: "style unusable", title: problem }, make("span", { className: "face" }), make("span", { className: "name", textContent: name })));
  if (!document.querySelector("input[name=library]:checked")) own.querySelector("input").checked = true;
  showOwn();
}

const library = () => document.querySelector("input[name=library]:checked").value;
function showOwn() {
  $("own").hidden = $("name").hidden = library() !== "";
}
$("styles").addEventListener("change", showOwn);

const say = (text, kind = "") => Object.assign($("said"), { textContent: text, className: kind });

function showChosen(zone) {
  const place = zone.querySelector(".chosen"), chosen = [...zone.querySelector("input").files];
  for (const image of place.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  const image = (file) => {
    const preview = make("img", { src: URL.createObjectURL(file), alt: file.name, title: file.name });
    preview.addEventListener("error", () => preview.remove()); // the browser cannot show it, for example TIFF
    return preview;
  };
  place.replaceChildren(...chosen.slice(0, 3).map(image), ...(chosen.length > 3 ? [make("small", { textContent: `and ${chosen.length - 3} more` })] : []));
  zone.querySelector("small").textContent = chosen.length === 1 ? chosen[0].name : chosen.length ? count(chosen.length, "picture") : "choose a file, or drop it here";
  say("");
}
for (const zone of document.querySelectorAll(".zone")) {
  const input = zone.querySelector("input");
  input.addEventListener("change", () => showChosen(zone));
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) {
      input.files = event.dataTransfer.files;
      showChosen(zone);
    }
  });
}

/** The first error in the form, or "". */
function complaint(contents, styles) {
  if (!contents.length) return "Choose a picture first.";
  if (!library() && contents.length > 1) return "To upload several pictures, choose a library style.";
  if (!library() && !styles.length) return "Choose a style.";
  const large = [...contents, ...styles].find((file) => file.size > limit);
  return large ? `${large.name} is larger than ${size(limit)}.` : "";
}

$("drop").addEventListener("submit", (event) => {
  event.preventDefault();
  const contents = [...$("content").files], styles = library() ? [] : [...$("style").files].slice(0, 1);
  const wrong = complaint(contents, styles);
  if (wrong) return say(wrong, "bad");
  const body = new FormData(); // the server needs the fields before the files
  body.append("library", library());
  if (!library()) body.append("name", $("name").value);
  for (const file of contents) body.append("content", file);
  for (const file of styles) body.append("style", file);
  send(body);
});

function send(body) {
  const request = new XMLHttpRequest(); // unlike fetch, it reports the upload progress
  const busy = (yes) => { $("send").disabled = yes; $("sent").hidden = !yes; $("sent").value = 0; };
  request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) $("sent").value = event.loaded / event.total; });
  request.addEventListener("loadend", () => {
    busy(false);
    let answer = {};
    try { answer = JSON.parse(request.responseText); } catch { /* not JSON */ }
    if (request.status !== 201) return say(answer.error || request.responseText || "The upload failed.", "bad");
    $("name").value = $("content").value = $("style").value = "";
    document.querySelectorAll(".zone").forEach(showChosen);
    say(`${answer.names.join(", ")} ${answer.names.length > 1 ? "are" : "is"} in the inbox${answer.folder ? `, in ${answer.folder}` : ""}.`, "good");
    poll();
  });
  busy(true);
  say("");
  request.open("POST", "/drop");
  request.send(body);
}

// Polling

let timer = 0;
async function poll() {
  clearTimeout(timer);
  const trouble = await fetch("/status.json", { signal: AbortSignal.timeout(20000) }).then(take, () => "The daemon does not answer. This page reconnects automatically.");
  $("trouble").textContent = trouble;
  $("trouble").hidden = !trouble;
  clearTimeout(timer);
  timer = setTimeout(poll, document.hidden ? HIDDEN_PAUSE : PAUSE);
}

/** Show an answer. Returns an error message, or "". */
async function take(answer) {
  if (answer.status === 401) return location.reload(); // the token has changed
  const data = await answer.json().catch(() => ({ error: `The daemon answered ${answer.status}.` }));
  if (data.error) return data.error;
  show(data);
  return "";
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
poll();
