// Asks the server, while a form is edited, whether it would accept it.
import { mayPass, post } from "./api.js";

const PAUSE = 350; // milliseconds after the last change
const LONGER_PAUSE = 3000; // milliseconds after an error that may pass

/**
 * {changed(), stop()}. path: "/jobs/check" or "/batches/check". body(): the request; null: there is nothing to check yet.
 * answered(result): with the CheckResult of the latest request; a request that fails is a problem of it. null: nothing was checked.
 */
export function checker({ path, body, answered }) {
  let timer = 0, controller = null;

  function stop() {
    clearTimeout(timer);
    controller?.abort();
  }

  async function check() {
    const asked = body();
    if (!asked) return answered(null);
    const mine = controller = new AbortController();
    try {
      const result = await post(path, asked, { signal: mine.signal });
      if (!mine.signal.aborted) answered(result);
    } catch (error) {
      if (mine.signal.aborted) return;
      answered({ problems: [problemOf(error)], estimate: null });
      if (mayPass(error)) timer = setTimeout(check, LONGER_PAUSE);
    }
  }

  return {
    changed() {
      stop();
      timer = setTimeout(check, PAUSE);
    },
    stop,
  };
}

/** An ApiError as one of the problems of a CheckResult. */
export const problemOf = (error) => ({ error: error.message, cause: error.cause, remedy: error.remedy, field: error.field || "" });

/** Send a form. act(): sends; show(problems): shows why it was refused. Then the first field concerned gets the focus, or else the button. */
export async function sendForm(form, send, act, show) {
  send.disabled = true;
  try {
    await act();
  } catch (error) {
    show([problemOf(error)]);
    send.disabled = false; // before the focus: a disabled button cannot have it
    const field = firstProblem(form);
    if (field) field.focus();
    else send.focus({ preventScroll: true });
  } finally {
    send.disabled = false;
  }
}

/** A listener for a long form: Enter in a field does not submit it, only its button and Ctrl+Enter do. */
export function onlyByButton(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    event.currentTarget.querySelector("[type=submit]").click();
  } else if (event.key === "Enter" && event.target.matches("input:not([type=file])")) event.preventDefault();
}

/** The first field of a form with a problem. A problem that belongs to no field is scrolled into view. */
function firstProblem(form) {
  const field = form.querySelector("[aria-invalid=true]");
  if (!field) [...form.querySelectorAll(".problem")].find((problem) => problem.textContent)?.scrollIntoView({ block: "center" });
  return field;
}
