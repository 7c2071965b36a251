// What all views share: the state of the daemon, kept up to date while the tab is visible, and lists that seldom change.
import { address, get, trouble } from "./api.js";

const FIRST_PAUSE = 1000, LONGEST_PAUSE = 15000; // milliseconds between two attempts to connect
export const AGAIN = 5000; // milliseconds after a failed request until views request everything again
const FAULTS = ["paused", "silent"];

/**
 * `status`: StatusInfo, or null before the first one. `connected`: whether it is up to date. `problem`: what the server
 * says about why it is not; may be empty. `session`: SessionInfo.
 * `changed`: when it differs, lists of jobs are out of date; also after the connection was lost.
 */
export const store = { status: null, connected: true, problem: "", changed: "", session: { name: "", access: "full" } };

const listeners = new Set();

/** Call `listener(store)` now, if there is a status, and after every change. Returns a function that ends this. */
export function subscribe(listener) {
  listeners.add(listener);
  if (store.status) listener(store);
  return () => listeners.delete(listener);
}

/** Call `listener()` each time when lists of jobs are out of date. Returns a function that ends this. */
export function whenChanged(listener) {
  let last = "";
  return subscribe(({ changed }) => {
    if (last && changed !== last) listener();
    last = changed;
  });
}

const tell = () => { for (const listener of [...listeners]) listener(store); };

/** Whether the visitor may change anything; with a read-only token, views hide what would be refused. */
export const mayChange = () => store.session.access === "full";

let source = null, timer = 0, pause = FIRST_PAUSE, losses = 0, again = 0;

/** Follow the state of the daemon while the tab is visible (browsers allow only six connections to a host). */
export function follow() {
  document.addEventListener("visibilitychange", () => document.hidden ? stop() : connect());
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  addEventListener("online", connect);
  connect();
}

function stop() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function connect() {
  stop();
  if (document.hidden) return;
  source = new EventSource(address("/events"));
  source.addEventListener("status", (event) => {
    pause = FIRST_PAUSE;
    const status = JSON.parse(event.data);
    if (FAULTS.includes(store.status?.state) && !FAULTS.includes(status.state)) losses++; // what could not be shown can be now
    Object.assign(store, { status, connected: true, problem: "", changed: `${losses}/${status.changed}` });
    tell();
  });
  source.addEventListener("problem", (event) => outdated(JSON.parse(event.data).error));
  source.addEventListener("error", lost);
}

/** The status is not the present one. problem: what the server says; "" if it does not answer. */
function outdated(problem) {
  losses++;
  Object.assign(store, { connected: false, problem });
  tell();
}

/** After a request that failed, views request their lists again, although no job has changed. */
trouble.listener = () => {
  again ||= setTimeout(() => {
    again = 0;
    if (!store.connected || document.hidden) return trouble.listener(); // later
    store.changed = `${++losses}/${store.status.changed}`;
    tell();
  }, AGAIN);
};

function lost() {
  stop();
  outdated("");
  get("/session").catch((error) => { if (error.status >= 500) outdated(error.message); }); // 401: the login page is shown
  timer = setTimeout(connect, pause);
  pause = Math.min(pause * 2, LONGEST_PAUSE);
}

/** Lists that are requested once and again after `forget(name)`. */
const kept = new Map();
const once = (path) => () => {
  if (!kept.has(path)) kept.set(path, get(path).catch((error) => { kept.delete(path); throw error; }));
  return kept.get(path);
};
export const settings = once("/settings");
export const limits = once("/limits");
export const styles = once("/styles");
export const forget = (name) => kept.delete(`/${name}`);
