// The frame of the page: navigation, the state of the daemon, language, colours, and which view is shown.
//
// A view is a module with
//   show(place, params)  fill the empty element `place`; `params.parts`: the path after the view's name, decoded
//                        (#/jobs/ID: ["ID"]); `params.query`: URLSearchParams of what follows "?" in the hash
//   leave()              end what it has begun: subscriptions, streams, timers
//   change(params)       optional: show another address without leave() and show(); null if that is not possible, else a promise
//   title                optional: a function that returns the title of the document
// When the hash changes, the router calls change(), or else leave() and show(). A view that changes its own query without being
// shown again uses history.replaceState.
import { get, remove } from "./api.js";
import * as batches from "./batches.js";
import { button, icon, list, make, setText } from "./dom.js";
import * as job from "./job.js";
import { FILTERS } from "./job_parts.js";
import * as jobs from "./jobs.js";
import * as paint from "./paint.js";
import * as results from "./results.js";
import { listen } from "./dropping.js";
import { enter } from "./navigation.js";
import { follow, store, subscribe } from "./store.js";
import { keep, stored } from "./stored.js";
import { language, LANGUAGES, percent, setLanguage, t } from "./texts.js";

const VIEWS = { "": paint, jobs, results, batches };
const NAVIGATION = [["", "paint"], ["jobs", "jobs"], ["results", "results"], ["batches", "batches"]];
const SCHEMES = ["system", "light", "dark"];
const SCHEME = "scheme";

/** The name of the view, the rest of the path and the query of a hash such as #/jobs?state=failed. */
function parse(hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split("?");
  const parts = path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  return { name: parts[0], parts: parts.slice(1).filter(Boolean), query: new URLSearchParams(query) };
}

const place = make("main", { id: "main", tabIndex: -1 });
let shown = null, wanted = 0;
let broken = null; // what the store had when a view could not be shown

async function route() {
  const first = shown === null, failed = broken !== null;
  broken = null;
  const { name, parts, query } = parse(location.hash);
  const view = name === "jobs" && parts.length ? job : VIEWS[name];
  if (!view) return location.replace("#/");
  enter(first);
  for (const dialog of document.querySelectorAll("dialog[open]:not(.viewer)")) dialog.close(); // Back was pressed
  const changed = view === shown && !failed ? view.change?.({ parts, query }) : null;
  if (changed) {
    await changed;
    return retitle();
  }
  const turn = ++wanted;
  shown?.leave();
  shown = view;
  // A new element for each view: what an earlier one still adds to its own is not seen.
  const inside = make("div", { class: `view view-${name || "paint"}` });
  place.replaceChildren(inside);
  for (const link of document.querySelectorAll(".navigation a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  scrollTo({ top: 0, behavior: "instant" });
  if (!first) place.focus({ preventScroll: true });
  place.setAttribute("aria-busy", "true");
  try {
    await view.show(inside, { parts, query });
  } catch (error) {
    if (turn === wanted) {
      inside.replaceChildren(...failure(view, error));
      broken = store.changed;
    }
  }
  if (turn === wanted) place.removeAttribute("aria-busy");
  retitle();
}

/** A view that could not be shown. */
const failure = (view, error) => [make("h1", {}, view.title?.() || "nst-daemon"),
  make("div", { class: "empty", role: "alert" }, make("p", {}, error.message), button(t("frame.again"), { icon: "retry", on: () => route() }))];

/** The title of the document: the progress, and the view. */
function retitle() {
  const painting = store.status?.paintings[0];
  const progress = painting ? `${painting.percent} % ${painting.name} · ` : "";
  document.title = `${progress}${shown?.title?.() || "nst-daemon"}`;
}

function showState({ status, connected, problem }) {
  if (connected && away) lookForUpdate();
  away = !connected;
  const state = connected ? status.state : problem ? "unknown" : "away";
  chip.dataset.state = state;
  const painting = connected && status.paintings[0];
  setText(chip.lastChild, painting ? t("frame.painting", { percent: percent(painting.percent / 100) }) : t(`state.${state}`));
  chip.title = status?.reason || "";
  const open = status ? FILTERS.open.states.reduce((sum, name) => sum + (status.counts[name] || 0), 0) : 0;
  const badge = document.querySelector("[data-view=jobs] .badge");
  badge.hidden = !open;
  setText(badge, String(open));
  badge.title = t("frame.open_jobs", { count: open });
  list(banners, complaints(status, connected, problem), (text) => text[0], ([key, text]) =>
    make("p", { class: `banner ${key}` }, make("span", {}, text), key === "renewed" && button(t("frame.reload"), { on: () => location.reload() })),
  (element, [, text]) => setText(element.firstChild, text));
  retitle();
  if (connected && broken !== null && broken !== store.changed) route();
}

let away = false, renewed = false;
/** Whether the daemon has other files of the page by now: their addresses contain a digest of all of them. */
async function lookForUpdate() {
  const response = await fetch("/").catch(() => null);
  if (!response?.ok) return;
  renewed ||= !(await response.text()).includes(new URL(".", import.meta.url).pathname); // an earlier answer may come later
  if (renewed) showState(store);
}

/** What a visitor must know in every view. */
function complaints(status, connected, problem) {
  if (!connected) return [problem ? ["reason", t("frame.problem", { problem })] : ["lost", t("frame.lost")]];
  const found = [];
  if (status.state === "away") found.push(["away", t("frame.away")]);
  else if (status.state === "silent") found.push(["reason", t("frame.silent")]);
  else if (status.state === "paused") found.push(["reason", t("frame.paused", { reason: status.reason })]);
  else if (status.state === "lost") found.push(["reason", status.reason]);
  if (renewed) found.push(["renewed", t("frame.renewed")]);
  return found;
}

// Language, colours, sign out

const scheme = () => stored(SCHEME, "system");

function useScheme(chosen) {
  keep(SCHEME, chosen);
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
}

function menu() {
  const choice = (label, values, chosen, change) => make("label", {}, make("span", {}, label),
    make("select", { on: { change: (event) => change(event.target.value) } }, ...values.map(([value, text]) => make("option", { value, selected: value === chosen }, text))));
  const panel = make("div", { class: "menu", id: "menu", popover: "auto" },
    choice(t("frame.language"), Object.entries(LANGUAGES), language, setLanguage),
    choice(t("frame.colours"), SCHEMES.map((name) => [name, t(`frame.${name}`)]), scheme(), useScheme),
    store.session.name && make("p", { class: "help" }, t(store.session.access === "read" ? "frame.signed_in_read" : "frame.signed_in", { name: store.session.name })),
    store.session.name && button(t("frame.sign_out"), { on: signOut }));
  panel.addEventListener("focusout", ({ relatedTarget }) => { // it would cover what has the focus
    if (relatedTarget && !panel.contains(relatedTarget) && relatedTarget.id !== "menu-button") panel.hidePopover();
  });
  return panel;
}

async function signOut() {
  await remove("/session");
  location.reload();
}

/** What is being painted is below the form on a narrow screen. */
const toNow = () => document.getElementById("now")?.scrollIntoView();
const chip = make("a", { href: "#/", class: "chip", on: { click: toNow } }, make("span", { class: "unseen" }, `${t("frame.state")}: `), make("span", {}, "…"));
const banners = make("div", { class: "banners", role: "status" });

async function start() {
  useScheme(scheme());
  await get("/session").then((session) => { store.session = session; }, () => {}); // the banner says that nothing answers
  const links = NAVIGATION.map(([name, key]) => make("a", { href: `#/${name}`, data: { view: name } },
    icon(key), make("span", {}, t(`${key}.title`)), name === "jobs" && make("span", { class: "badge", hidden: true })));
  const opener = button("", { icon: "menu", label: t("frame.menu"), kind: "quiet", id: "menu-button" });
  opener.setAttribute("popovertarget", "menu");
  const skip = make("a", { class: "skip", href: "#main", on: { click: (event) => { event.preventDefault(); place.focus(); } } }, t("frame.skip"));
  document.body.append(skip,
    make("header", { class: "frame" },
      make("a", { href: "#/", class: "brand", "aria-label": "nst-daemon" }, make("img", { src: new URL("icon.svg", import.meta.url).href, alt: "", width: 28, height: 28 }), make("span", {}, "nst-daemon")),
      make("nav", { class: "navigation", "aria-label": t("frame.navigation") }, ...links), chip, opener, menu()),
    banners, place);
  subscribe(showState);
  follow();
  listen();
  addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) lookForUpdate(); });
  await route();
}

start();
