// Files that are being uploaded or have been. A tray outlives the view that shows it, so that a visitor can look elsewhere.
import { address, ApiError, mayPass, remove, upload } from "./api.js";
import { announce } from "./dom.js";
import { limits } from "./store.js";
import { bytes, t } from "./texts.js";

const SIDE_BY_SIDE = 2; // uploads at a time
const FIRST_PAUSE = 3000, LONGEST_PAUSE = 30000; // milliseconds until an upload begins again after an error that may pass
const LARGEST_PREVIEW = 30e6; // bytes; a browser needs much memory to show a larger file
const waiting = [];
let sending = 0, serial = 0;

/**
 * A file. state: "waiting", "sending", "done", "failed" (it can be uploaded again) or "refused" (it cannot).
 * part: what has been sent, 0 to 1. info: UploadInfo when it is done. name: of the result, written by the visitor.
 * of: of a mask, the id of the item that it belongs to. kept: it is of an earlier job and not uploaded; input: its number among the inputs of that job; source: its address.
 */
class Item {
  constructor(file) {
    Object.assign(this, { id: ++serial, file, label: file.name, name: "", state: "waiting", part: 0, info: null, error: "", problem: "", abort: null, preview: "", of: 0, kept: false, input: null, source: "", pause: FIRST_PAUSE, timer: 0 });
    if (file.size <= LARGEST_PREVIEW && /^image\/(png|jpeg|webp|gif|avif|bmp)$/.test(file.type)) this.preview = URL.createObjectURL(file);
  }

  /** The address of a small picture of it, or "". */
  get thumbnail() {
    return this.info ? address(`/uploads/${this.info.id}/thumbnail`) : this.source || this.preview;
  }

  /** What a request names it by: the id of its upload, or the number of an input; undefined until it is uploaded. */
  get reference() {
    return this.info?.id ?? this.input ?? undefined;
  }

  release() {
    clearTimeout(this.timer);
    if (this.preview) URL.revokeObjectURL(this.preview);
    this.preview = "";
  }
}

/** A list of files for one purpose. `max(limits)`: how many there may be. */
export class Tray {
  constructor(max) {
    this.items = [];
    this.max = max;
    this.listeners = new Set();
  }

  /** Call `listener()` after each change. Returns a function that ends this. */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  tell() {
    for (const listener of [...this.listeners]) listener();
  }

  /** Add files and upload those that the daemon will accept. more: further properties of the items. Returns the new items. */
  async add(files, more = {}) {
    const known = await limits().catch(() => null); // the server refuses what the page does not
    const added = [...files].map((file) => Object.assign(new Item(file), more));
    for (const item of added) {
      item.error = known ? refusal(item.file, known) || (this.kept.length >= this.max(known) ? t("upload.too_many", { count: this.max(known) }) : "") : "";
      if (item.error) item.state = "refused";
      this.items.push(item);
      if (!item.error) queue(this, item);
    }
    this.tell();
    return added;
  }

  /** Add a file that was uploaded before the page was loaded. Without `info` its upload was interrupted, and it has to be chosen again. */
  restore({ id, label, name, info, of }) {
    const item = Object.assign(new Item({ name: label, size: info?.bytes, type: "" }), { id, name, info, of }, info ? { state: "done", part: 1 } : { state: "refused", error: t("upload.interrupted") });
    serial = Math.max(serial, id);
    this.items.push(item);
    this.tell();
    return item;
  }

  /** Add a picture of an earlier job: {label, input, source, of}. Without `input` it stands for all that the job has. */
  keep(values) {
    const item = Object.assign(new Item({ name: values.label, size: 0, type: "" }), values, { kept: true, state: "done", part: 1 });
    this.items.push(item);
    return item;
  }

  /** Those that are not refused. */
  get kept() {
    return this.items.filter((item) => item.state !== "refused");
  }

  get done() {
    return this.items.filter((item) => item.state === "done");
  }

  get busy() {
    return this.items.some((item) => item.state === "waiting" || item.state === "sending");
  }

  /** Remove an item, and what has been uploaded of it. */
  drop(item) {
    this.items = this.items.filter((other) => other !== item);
    item.abort?.abort();
    item.release();
    if (waiting.some(([, other]) => other === item)) waiting.splice(waiting.findIndex(([, other]) => other === item), 1);
    if (item.info) remove(`/uploads/${item.info.id}`).catch(() => {}); // it expires by itself
    this.tell();
  }

  /** Upload an item again. */
  retry(item) {
    if (item.state !== "failed") return;
    clearTimeout(item.timer);
    Object.assign(item, { state: "waiting", error: "", part: 0 });
    queue(this, item);
    this.tell();
  }

  /** Forget everything; the daemon has taken what it needs. */
  clear() {
    for (const item of this.items) item.release();
    this.items = [];
    this.tell();
  }
}

/** Why the daemon would refuse a file, or "". */
function refusal(file, known) {
  const suffix = /\.[^.]+$/.exec(file.name)?.[0].toLowerCase() || "";
  if (!known.suffixes.includes(suffix)) return t("upload.format", { suffix: suffix || t("upload.no_suffix") });
  if (!file.size) return t("upload.empty");
  if (file.size > known.max_bytes) return t("upload.too_large", { size: bytes(file.size), limit: bytes(known.max_bytes) });
  return "";
}

function queue(tray, item) {
  waiting.push([tray, item]);
  next();
}

async function next() {
  if (sending >= SIDE_BY_SIDE || !waiting.length) return;
  const [tray, item] = waiting.shift();
  sending++;
  next();
  item.state = "sending";
  item.abort = new AbortController();
  tray.tell();
  try {
    item.info = await upload(item.file, { signal: item.abort.signal, progress: (part) => { item.part = part; tray.tell(); } });
    item.state = "done";
    item.release();
    if (!tray.items.includes(item)) remove(`/uploads/${item.info.id}`).catch(() => {}); // it was dropped in the meantime
  } catch (error) {
    item.state = error instanceof ApiError && [400, 413, 422].includes(error.status) ? "refused" : "failed";
    item.error = error.message.startsWith(item.label) ? error.message.slice(item.label.length).trimStart() : error.message; // the label is shown before it
    if (mayPass(error) && tray.items.includes(item)) {
      item.error = error.status ? t("upload.later", { error: item.error }) : t("upload.broken");
      item.timer = setTimeout(() => tray.retry(item), item.pause);
      item.pause = Math.min(LONGEST_PAUSE, 2 * item.pause);
    }
  } finally {
    sending--;
    item.abort = null;
    tray.tell();
    if (!tray.busy && item.state === "done") announce(t("upload.so_far", { done: tray.done.length, count: tray.kept.length }));
    next();
  }
}

/** Browsers ask before they leave the page while something is uploaded. */
addEventListener("beforeunload", (event) => { if (sending || waiting.length) event.preventDefault(); });
