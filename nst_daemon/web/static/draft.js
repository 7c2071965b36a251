// What a visitor has entered in a form, kept in the tab: a reload, a closed phone and the login page lose nothing.
import { get } from "./api.js";

/**
 * Fill in what the form had before the page was loaded, and keep what it has when the page is left.
 * key: of the form. trays: {name: Tray}. chosen: the set of chosen styles. written: an object of plain values.
 */
export function draft(key, { trays, chosen, written }) {
  const stored = `nst-daemon-draft-${key}`;
  restore(stored, { trays, chosen, written });
  const keep = () => {
    const files = Object.fromEntries(Object.entries(trays).map(([name, tray]) => [name, tray.kept.map((item) => ({ id: item.id, label: item.label, name: item.name, info: item.info, of: item.of }))]));
    try { sessionStorage.setItem(stored, JSON.stringify({ files, chosen: [...chosen], written })); } catch { /* storage may be full or forbidden */ }
  };
  addEventListener("pagehide", keep);
  document.addEventListener("visibilitychange", () => { if (document.hidden) keep(); }); // a phone may end a hidden page
}

function restore(stored, { trays, chosen, written }) {
  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(stored)); } catch { /* not readable */ }
  if (!kept) return;
  Object.assign(written, kept.written);
  for (const one of kept.chosen) chosen.add(one);
  for (const [name, items] of Object.entries(kept.files))
    for (const item of items) {
      const restored = trays[name].restore(item);
      if (item.info) get(`/uploads/${item.info.id}`).catch((error) => { if (error.status === 404) trays[name].drop(restored); }); // it has expired
    }
}
