// Pictures that are dropped anywhere on the page, or pasted.
import { icon, make } from "./dom.js";
import { stamp, t } from "./texts.js";

const AFTER_LEAVING = 120; // milliseconds without dragover until the overlay disappears
let targets = [], usual = [];

/** What can be done with files: [{text, take(files)}]; the first gets what is pasted. `forAllViews`: also in views with none of their own. */
export function setTargets(found, { forAllViews = false } = {}) {
  if (forAllViews) usual = found;
  targets = found;
}

/** End the targets of a view. */
export function resetTargets() {
  targets = usual;
}

/** Listen for the life of the page. */
export function listen() {
  const overlay = make("div", { class: "dropping", hidden: true });
  document.body.append(overlay);
  let timer = 0;
  const hide = () => { overlay.hidden = true; };

  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files") || event.defaultPrevented) return;
    event.preventDefault(); // else the browser would show a file that is dropped here instead of the page
    if (document.querySelector("dialog[open]") || !targets.length) {
      event.dataTransfer.dropEffect = "none";
      return;
    }
    if (overlay.hidden) {
      overlay.replaceChildren(...targets.map((target, number) => make("div", { data: { number } }, icon(number ? "paint" : "results"), make("b", {}, target.text))));
      overlay.hidden = false;
    }
    for (const place of overlay.children) place.classList.toggle("over", place.contains(event.target));
    clearTimeout(timer);
    timer = setTimeout(hide, AFTER_LEAVING * 3);
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) timer = setTimeout(hide, AFTER_LEAVING); });
  addEventListener("drop", async (event) => {
    if (overlay.hidden) return;
    event.preventDefault();
    const target = targets[event.target.closest?.("[data-number]")?.dataset.number || 0];
    hide();
    const files = await filesOf(event.dataTransfer);
    if (files.length) target.take(files);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])];
    const writes = event.target.matches?.("input, textarea") && event.clipboardData.types.includes("text/plain");
    if (!files.length || writes || !targets.length || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    targets[0].take(files.map(renamed));
  });
}

/** Browsers call every pasted picture "image.png". */
function renamed(file) {
  if (!/^image\.\w+$/.test(file.name)) return file;
  const name = t("upload.pasted", { time: stamp() });
  return new File([file], `${name}.${file.name.split(".").at(-1)}`, { type: file.type });
}

/** Take files that are dropped on an element in a dialog. Returns the element. */
export function acceptDrops(element, take) {
  const over = (event) => {
    if (!element.closest("dialog") || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    element.classList.add("over");
  };
  element.addEventListener("dragenter", over);
  element.addEventListener("dragover", over);
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", async (event) => {
    if (!element.closest("dialog")) return;
    event.preventDefault();
    element.classList.remove("over");
    take(await filesOf(event.dataTransfer));
  });
  return element;
}

/** The dropped files, and those in dropped folders. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const found = await Promise.all(entries.map(below));
  return found.flat();
}

async function below(entry) {
  if (entry.isFile) return entry.name.startsWith(".") ? [] : [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), found = [];
  for (;;) { // a reader returns at most 100 entries at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const inner of some) found.push(...await below(inner));
  }
}
