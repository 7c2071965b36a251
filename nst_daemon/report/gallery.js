"use strict";
// Names and notes are set as text, never as HTML.
const { entries, settings, thumb, view } = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const CHUNK = 60;
let shown = entries; // the results of the search, newest group first
let drawn = 0;       // how many of them are on the page
let current = -1;    // the index of the open one

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
};
const picture = (key, side, alt, name = "") =>
  key
    ? make("img", { className: name, src: `.gallery/${key}-${side}.webp`, alt, loading: "lazy", decoding: "async" })
    : make("span", { className: `none ${name}`, textContent: "not found" });
const date = (entry) => clock(new Date(entry.finished));
const all = ({ settings: [base, changes] }) => ({ ...settings[base], ...changes });

const address = (entry) => "#" + encodeURIComponent(entry.json);

// The list

function search() {
  const words = $("search").value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  const group = $("group").value;
  const matches = (entry) => {
    entry.text ??= [entry.name, entry.group, entry.finished, date(entry), entry.model, ...entry.notes,
      ...entry.contents.concat(entry.styles).map(([name]) => name),
      ...Object.entries(all(entry)).map(([key, value]) => `${key}=${plain(value)}`)].join("\n").toLocaleLowerCase();
    return words.every((word) => entry.text.includes(word));
  };
  const found = entries.filter((entry) => (group === "*" || entry.group === group) && matches(entry));
  // Groups in the order of their newest result; the sort is stable, so inside them the newest stays first.
  const order = new Map();
  for (const entry of found) if (!order.has(entry.group)) order.set(entry.group, order.size);
  shown = found.sort((a, b) => order.get(a.group) - order.get(b.group));
  drawn = 0;
  $("list").replaceChildren();
  $("count").textContent = shown.length === entries.length ? count(entries.length, "picture") : `${shown.length} of ${entries.length}`;
  if (!shown.length) $("list").append(make("p", { className: "empty", textContent: entries.length ? "No matches." : "No results yet." }));
  draw();
}

function draw() {
  const part = document.createDocumentFragment();
  for (const end = Math.min(drawn + CHUNK, shown.length); drawn < end; drawn++) {
    const entry = shown[drawn];
    if (drawn === 0 || entry.group !== shown[drawn - 1].group) part.append(make("h2", { textContent: entry.group || "Pairs and single pictures" }));
    part.append(card(entry));
  }
  $("list").append(part);
}

const card = (entry) =>
  make("a", { className: "card", href: address(entry), title: entry.name },
    picture(entry.key, thumb, entry.name, "result"),
    make("span", { className: "row" },
      make("span", { className: "inputs" },
        ...entry.contents.map(([name, key]) => picture(key, thumb, `content: ${name}`)),
        ...entry.styles.slice(0, 3).map(([name, key]) => picture(key, thumb, `style: ${name}`))),
      make("span", { className: "text" },
        make("b", { textContent: entry.name }), make("small", { textContent: date(entry) }))));

// One result

function open(index) {
  current = index;
  const entry = shown[index];
  $("title").textContent = entry.name;
  $("facts").textContent = `${date(entry)} · ${entry.width} × ${entry.height} · ${count(entry.iterations, "iteration")} in ${duration(entry.seconds)} · loss ${entry.loss.toPrecision(3)} · ${entry.model}`;
  $("previous").disabled = index === 0;
  $("next").disabled = index === shown.length - 1;
  const captioned = (element, caption) => make("figure", {}, element, make("figcaption", { textContent: caption }));
  const linked = (file, text) => make("a", { href: file, target: "_blank", rel: "noopener" }, text);
  $("body").replaceChildren(...[
    entry.contents.some(([, key]) => key) ? compare(entry) : null,
    make("div", { className: "side" },
      ...entry.contents.map(([name, key]) => captioned(picture(key, thumb, "content"), `content: ${name}`)),
      ...entry.styles.map(([name, key]) => captioned(picture(key, thumb, "style"), `style: ${name}`)),
      captioned(linked(entry.picture, make("img", { src: entry.shown, alt: "result", decoding: "async" })), "result, full size")),
    command(entry),
    entry.lapse || entry.curve ? make("div", { className: "pair" },
      entry.lapse ? captioned(make("img", { src: entry.lapse, alt: "time-lapse" }), "Time-lapse") : null,
      entry.curve ? captioned(linked(entry.curve, make("img", { src: entry.curve, alt: "loss curve" })), "Loss curve") : null) : null,
    entry.notes.length ? make("ul", { className: "notes" }, ...entry.notes.map((textContent) => make("li", { textContent }))) : null,
    make("section", {}, make("h3", { textContent: "Settings" }),
      make("dl", { className: "settings" }, ...Object.entries(all(entry)).map(([key, value]) =>
        make("div", {}, make("dt", { textContent: key }), make("dd", { textContent: plain(value) }))))),
  ].filter(Boolean));
  if (!$("view").open) $("view").showModal();
  $("view").scrollTop = 0;
  $("close").focus();
}

function compare(entry) {
  const [name, key] = entry.contents.find(([, key]) => key);
  const range = make("input", { type: "range", min: 0, max: 100, step: "any", value: 50 });
  range.setAttribute("aria-label", "Content on the left, result on the right");
  const under = make("img", { src: `.gallery/${key}-${view}.webp`, alt: `content: ${name}` });
  const over = make("img", { className: "over", src: entry.shown, alt: "result" });
  const box = make("div", { className: "compare" }, under, over, range, make("span", { className: "bar" }));
  box.style.aspectRatio = `${entry.width} / ${entry.height}`;
  // As large as fits, but not much larger than the picture itself.
  box.style.width = `min(100%, ${Math.max(480, entry.width)}px, ${(70 * entry.width / entry.height).toFixed(1)}vh)`;
  const cut = () => box.style.setProperty("--cut", `${range.value}%`);
  range.addEventListener("input", cut); // for the keyboard
  const drag = (event) => {
    if (!event.buttons) return;
    const { left, width } = box.getBoundingClientRect();
    range.value = 100 * (event.clientX - left) / width;
    cut();
  };
  box.addEventListener("pointerdown", (event) => { box.setPointerCapture(event.pointerId); range.focus(); drag(event); event.preventDefault(); });
  box.addEventListener("pointermove", drag);
  return box;
}

function command(entry) {
  const code = make("code", { id: "command", textContent: entry.command, tabIndex: 0 });
  const button = make("button", { id: "copy", type: "button", textContent: "Copy the command that paints it again" });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(entry.command);
    } catch { // without a secure context, only the old API works
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
  });
  return make("div", { className: "command" }, code, button);
}

const plain = (value) =>
  value === null ? "–" : Array.isArray(value) ? value.join(", ") || "–"
    : typeof value === "object" ? Object.entries(value).map(([k, v]) => `${k} ${v}`).join(", ") : String(value);

// Navigation: the URL names the open result, so that back, forward and bookmarks work

function follow() {
  const wanted = location.hash.slice(1);
  if (!wanted) return $("view").open && $("view").close();
  let index = shown.findIndex((entry) => address(entry) === location.hash);
  if (index < 0 && entries.some((entry) => address(entry) === location.hash)) {
    $("search").value = "";
    $("group").value = "*";
    search();
    index = shown.findIndex((entry) => address(entry) === location.hash);
  }
  if (index >= 0) open(index);
}
const leave = () => { history.replaceState(null, "", location.pathname + location.search); follow(); focusCard(current); };
const turn = (by) => { if (shown[current + by]) { location.replace(address(shown[current + by])); } };

function focusCard(index) {
  while (drawn <= index && drawn < shown.length) draw();
  document.querySelectorAll(".card")[index]?.focus();
}

function columns() {
  const cards = [...document.querySelectorAll(".card")].slice(0, 30);
  return Math.max(1, cards.findIndex((card) => card.offsetTop > cards[0].offsetTop));
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select");
  if ($("view").open) {
    if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
    if (event.key === "ArrowLeft") turn(-1);
    else if (event.key === "ArrowRight") turn(1);
    else if (event.key === "c") $("copy").click();
    else return;
    event.preventDefault();
  } else if (event.key === "/" && !typing) {
    event.preventDefault();
    $("search").focus();
  } else if (event.key === "Escape" && event.target === $("search")) {
    $("search").value = "";
    search();
  } else if (!typing || (event.target === $("search") && event.key === "ArrowDown")) {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() }[event.key];
    if (!by || !shown.length) return;
    const at = [...document.querySelectorAll(".card")].indexOf(document.activeElement);
    focusCard(at < 0 ? 0 : Math.min(Math.max(at + by, 0), shown.length - 1));
    event.preventDefault();
  }
});
$("view").addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
$("close").addEventListener("click", leave);
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
$("search").addEventListener("input", search);
$("group").addEventListener("change", search);
addEventListener("hashchange", follow);
new IntersectionObserver((seen) => { if (seen.some((s) => s.isIntersecting) && drawn < shown.length) draw(); }, { rootMargin: "1500px" }).observe($("more"));

const root = document.documentElement;
const remembered = (value) => { // a page opened from a file may have no storage
  try { return value ? localStorage.setItem("theme", value) : localStorage.getItem("theme"); } catch { return null; }
};
if (remembered()) root.dataset.theme = remembered();
$("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  remembered(root.dataset.theme);
});

$("group").append(make("option", { value: "*", textContent: "All folders" }),
  ...[...new Set(entries.map((entry) => entry.group))].map((group) => make("option", { value: group, textContent: group || "Pairs and single pictures" })));
$("group").hidden = new Set(entries.map((entry) => entry.group)).size < 2;
search();
follow();
