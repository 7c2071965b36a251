// The dialogs "paint again" and "retry with changes": the form of the settings, filled in with those of the job.
import { address, ApiError, get, post } from "./api.js";
import { problemOf } from "./checker.js";
import { ask, make, picture, toast } from "./dom.js";
import { changedSettings, heading, imageOf, name as shownName, styleNames } from "./job_parts.js";
import { settingsForm } from "./settings_form.js";
import { limits, settings, styles } from "./store.js";
import { enumeration, t } from "./texts.js";

/** A job that has already ended is painted again with changes, as a new job. Returns {id, name}, or null. */
export async function paintAgain(job) {
  const form = await changesForm([job]);
  if (!form) return null;
  const name = make("input", { id: "repeat-name", type: "text", maxLength: 200, autocomplete: "off", placeholder: job.name });
  let made = null, others = null;
  await ask({
    title: t("repeat.title"),
    wide: true,
    body: [form.about, form.style, field("repeat-name", t("repeat.name"), name), form.priority, form.element, form.trouble],
    action: t("repeat.send"),
    cancel: t("job.dismiss"),
    accept: () => form.send(async () => {
      const { set, unset } = form.changes();
      // The job has every setting; those that came with its preset give way to another one.
      const replaced = "preset" in set ? Object.keys(form.job.settings).filter((key) => !(key in form.values())) : [];
      const body = { set, unset: [...new Set([...unset, ...replaced])], name: name.value.trim(), priority: form.chosenPriority(), other_weights: Boolean(others?.checked) };
      if (form.chosenStyle()) body.styles = [{ library: form.chosenStyle() }];
      made = (await post(`/jobs/${form.job.id}/repeat`, body)).jobs[0];
    }, (error) => {
      if (others || !/weights/.test(error.message)) return;
      others = make("input", { type: "checkbox", id: "repeat-weights" });
      form.trouble.after(make("label", { class: "repeat-check" }, others, make("span", {}, t("repeat.other_weights"))));
    }),
  });
  if (made) toast("good", `${t("repeat.added")} `, make("a", { href: `#/jobs/${made.id}` }, made.name));
  return made;
}

/** Failed or cancelled jobs are painted again with changed settings. Returns whether that was requested. */
export async function retryWithChanges(jobs) {
  const form = await changesForm(jobs);
  if (!form) return false;
  const unknown = jobs.length === 1 && /unknown setting '?([^\s';,)]+)/.exec(jobs[0].error)?.[1];
  const ignored = unknown ? make("input", { type: "checkbox", id: "repeat-ignore", checked: true }) : null;
  return ask({
    title: t("repeat.retry_title", { count: jobs.length }),
    wide: true,
    body: [form.about, ignored ? make("label", { class: "repeat-check" }, ignored, make("span", {}, t("repeat.ignore", { key: unknown }))) : null, form.style, form.priority, form.element, form.trouble].filter(Boolean),
    action: t("repeat.retry_send"),
    cancel: t("job.dismiss"),
    accept: () => form.send(async () => {
      const { set, unset } = form.changes(), priority = form.chosenPriority();
      if (form.chosenStyle()) set.style = form.chosenStyle();
      if (ignored?.checked) unset.push(unknown);
      const body = { action: "retry", ids: jobs.map((job) => job.id), set, unset };
      if (priority !== jobs[0].priority) body.priority = priority;
      const { requested, problems } = await post("/jobs/actions", body);
      if (problems.length && !requested.length) throw new ApiError(400, problems[0]);
      if (problems.length) toast("bad", t("job.not_requested", { count: problems.length, reasons: enumeration([...new Set(problems.map((one) => one.error))].slice(0, 3)) }));
      toast("good", t("job.done_retry", { count: requested.length }));
    }),
  });
}

const field = (id, label, input) => make("div", { class: "repeat-field" }, make("label", { for: id }, label), input);

/** What both dialogs share; null after a message if it cannot be loaded. */
async function changesForm(jobs) {
  let info, library, most, job;
  try {
    [info, library, { max_priority: most }, job] = await Promise.all([settings(), styles(), limits(), get(`/jobs/${jobs[0].id}`)]);
  } catch (error) {
    toast("bad", error.message);
    return null;
  }
  const values = jobs.length > 1 ? {} : changedSettings(job, info);
  const form = settingsForm({ info, values, id: "repeat-settings" });
  const select = make("select", { id: "repeat-style", on: { change: () => showFace() } },
    make("option", { value: "" }, jobs.length > 1 ? t("repeat.same_styles") : t("repeat.same_style", { name: styleNames(job) || "–" })),
    ...library.filter((style) => !style.problem).map((style) => make("option", { value: style.name }, style.name)));
  const face = make("span", { class: "repeat-face" });
  const own = job.inputs.findIndex((input) => input.role === "style" && input.available);
  const showFace = () => {
    const style = library.find((one) => one.name === select.value);
    const src = style ? address(`/styles/${encodeURIComponent(style.name)}/thumbnail`, { v: style.version }) : own >= 0 && jobs.length === 1 ? imageOf(job, `inputs/${own}`, { size: "thumbnail" }) : "";
    face.replaceChildren(...(src ? [picture(src, { class: "job-thumb" })] : []));
  };
  showFace();
  const priority = make("input", { id: "repeat-priority", type: "number", step: 1, min: -most, max: most, value: jobs[0].priority });
  const trouble = make("p", { class: "problem", role: "alert" });
  const content = job.inputs.findIndex((input) => input.role === "content" && input.available);
  return {
    job,
    trouble,
    element: form.element,
    changes: () => form.changes(),
    values: () => form.values(),
    chosenStyle: () => select.value,
    chosenPriority: () => priority.valueAsNumber || 0,
    about: make("div", { class: "repeat-about" }, jobs.length === 1 && content >= 0 ? picture(imageOf(job, `inputs/${content}`, { size: "thumbnail" }), { class: "job-thumb" }) : null,
      jobs.length === 1 ? shownName(heading(job)) : make("span", {}, t("jobs.count", { count: jobs.length }))),
    style: field("repeat-style", t("repeat.style"), make("div", { class: "repeat-style" }, face, select)),
    priority: field("repeat-priority", t("job.priority"), priority),
    /** Send; false if something was refused, which is shown at its field. */
    async send(act, refused = () => {}) {
      trouble.textContent = "";
      try {
        await act();
        return true;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        const rest = form.problems([problemOf(error)]);
        trouble.textContent = rest.map((one) => one.error).join(" ");
        refused(error);
        return false;
      }
    },
  };
}
