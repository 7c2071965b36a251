// The dialogs "paint again" and "retry with changes": the forms of styles, masks and settings, filled in with those of the job.
import { ApiError, get, post } from "./api.js";
import { areas } from "./areas.js";
import { problemOf } from "./checker.js";
import { ask, make, picture, toast } from "./dom.js";
import { changedSettings, heading, imageOf, name as shownName } from "./job_parts.js";
import { settingsForm } from "./settings_form.js";
import { limits, settings } from "./store.js";
import { stylePicker } from "./style_picker.js";
import { enumeration, t } from "./texts.js";
import { Tray } from "./uploads.js";

/** A job that has already ended is painted again with changes, as a new job. Returns {id, name}, or null. */
export async function paintAgain(job) {
  const form = await changesForm([job]);
  if (!form) return null;
  const name = make("input", { id: "repeat-name", type: "text", maxLength: 200, autocomplete: "off", placeholder: job.name });
  let made = null, others = null;
  await form.ask({
    title: t("repeat.title"),
    first: [field("repeat-name", t("repeat.name"), name)],
    action: t("repeat.send"),
    act: async () => {
      made = (await post(`/jobs/${job.id}/repeat`, { ...form.body(true), name: name.value.trim(), other_weights: Boolean(others?.checked) })).jobs[0];
    },
    refused(error) {
      if (others || !/weights/.test(error.message)) return;
      others = make("input", { type: "checkbox", id: "repeat-weights" });
      form.trouble.after(make("label", { class: "repeat-check" }, others, make("span", {}, t("repeat.other_weights"))));
    },
  });
  if (made) toast("good", `${t("repeat.added")} `, make("a", { href: `#/jobs/${made.id}` }, made.name));
  return made;
}

/** Failed or cancelled jobs are painted again with changed settings; with other pictures, as new jobs. Returns whether that was requested. */
export async function retryWithChanges(jobs) {
  const form = await changesForm(jobs);
  if (!form) return false;
  const unknown = jobs.length === 1 && /unknown setting '?([^\s';,)]+)/.exec(jobs[0].error)?.[1];
  const ignored = unknown ? make("input", { type: "checkbox", id: "repeat-ignore", checked: true }) : null;
  const changes = () => {
    const found = form.body(form.otherPictures());
    if (ignored?.checked) found.unset.push(unknown);
    return found;
  };
  return form.ask({
    title: t("repeat.retry_title", { count: jobs.length }),
    first: [ignored && make("label", { class: "repeat-check" }, ignored, make("span", {}, t("repeat.ignore", { key: unknown })))],
    note: t("repeat.new_jobs", { count: jobs.length }),
    action: t("repeat.retry_send"),
    act: () => form.otherPictures() ? repeatAll(jobs, changes()) : retryAll(jobs, changes()),
  });
}

/** Retry jobs with changed settings. Raises ApiError if none can be. */
async function retryAll(jobs, { set, unset, priority }) {
  const body = { action: "retry", ids: jobs.map((job) => job.id), set, unset };
  if (priority !== jobs[0].priority) body.priority = priority;
  const { requested, problems } = await post("/jobs/actions", body);
  if (problems.length && !requested.length) throw new ApiError(400, problems[0]);
  report("job.done_retry", requested.length, problems);
}

/** Submit new jobs with other pictures. Raises ApiError if none can be. */
async function repeatAll(jobs, body) {
  const problems = [];
  let made = 0;
  for (const job of jobs)
    try {
      await post(`/jobs/${job.id}/repeat`, body);
      made++;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      problems.push(error);
    }
  if (!made) throw problems[0];
  report("paint.sent", made, problems);
}

function report(text, count, problems) {
  if (problems.length) toast("bad", t("job.not_requested", { count: problems.length, reasons: enumeration([...new Set(problems.map((one) => one.error || one.message))].slice(0, 3)) }));
  if (count) toast("good", t(text, { count }));
}

const field = (id, label, input) => make("div", { class: "repeat-field" }, make("label", { for: id }, label), input);

/** What both dialogs share; null after a message if it cannot be loaded. */
async function changesForm(jobs) {
  let info, most, job;
  try {
    [info, { max_priority: most }, job] = await Promise.all([settings(), limits(), get(`/jobs/${jobs[0].id}`)]);
  } catch (error) {
    toast("bad", error.message);
    return null;
  }
  const values = jobs.length > 1 ? {} : changedSettings(job, info);
  const form = settingsForm({ info, values, id: "repeat-settings" });
  const pictures = picturesForm(jobs.length > 1 ? null : job);
  const priority = make("input", { id: "repeat-priority", type: "number", step: 1, min: -most, max: most, value: jobs[0].priority });
  const trouble = make("p", { class: "problem", role: "alert" });
  const content = job.inputs.findIndex((input) => input.role === "content" && input.available);
  const about = make("div", { class: "repeat-about" }, jobs.length === 1 && content >= 0 ? picture(imageOf(job, `inputs/${content}`, { size: "thumbnail" }), { class: "job-thumb" }) : null,
    jobs.length === 1 ? shownName(heading(job)) : make("span", {}, t("jobs.count", { count: jobs.length })));

  /** Send; false if something was refused, which is shown at its field. */
  async function send(act, refused) {
    trouble.textContent = pictures.missing();
    if (trouble.textContent) return false;
    try {
      await act();
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      trouble.textContent = pictures.problems(form.problems([problemOf(error)])).map((one) => one.error).join(" ");
      refused?.(error);
      return false;
    }
  }

  return {
    trouble,
    otherPictures: () => Boolean(pictures.changes()),
    /** A Repeat, without a name. again: a new job gets every setting of the job; those that came with its preset give way to another preset. */
    body(again) {
      const { set, unset } = form.changes();
      const replaced = again && "preset" in set && jobs.length === 1 ? Object.keys(job.settings).filter((key) => !(key in form.values())) : [];
      return { set, unset: [...new Set([...unset, ...replaced])], priority: priority.valueAsNumber || 0, ...pictures.changes() };
    },
    /** Show the dialog. first: elements before the styles. note: shown while other pictures are chosen. act(): sends; refused(error). */
    async ask({ title, first, note, action, act, refused }) {
      const said = make("p", { class: "help", role: "status" });
      pictures.onchange = () => { said.textContent = note && pictures.changes() ? note : ""; };
      const body = [about, ...first, pictures.element, said, field("repeat-priority", t("job.priority"), priority), form.element, trouble].filter(Boolean);
      const done = await ask({ title, wide: true, body, action, cancel: t("job.dismiss"), accept: () => send(act, refused) });
      pictures.end();
      return done;
    },
  };
}

/** The styles and masks of a job, and others instead. job: JobDetails; null: of several jobs, which keep theirs or all get the same. */
function picturesForm(job) {
  const contents = new Tray(() => 1), styles = new Tray((known) => known.max_style_pictures), masks = new Tray((known) => known.max_style_pictures + 1);
  const kept = (tray, role, of = () => 0) => (job?.inputs || []).map((input, number) => ({ ...input, number })).filter((input) => input.role === role)
    .map(({ name, number, available }, place) => tray.keep({ label: name.replace(/\.style(-\d+)?(?=\.[^.]*$)/i, ""), name: role === "content" ? heading(job) : "", input: number, of: of(place), source: available ? imageOf(job, `inputs/${number}`, { size: "thumbnail" }) : "" }));
  const own = kept(contents, "content"), before = kept(styles, "style");
  if (!before.length) before.push(styles.keep({ label: t("repeat.same_styles") }));
  kept(masks, "content-mask", () => own[0]?.id);
  kept(masks, "style-mask", (place) => before[place]?.id);
  const chosen = new Set(before.map((item) => `upload:${item.id}`));
  const picker = stylePicker({ tray: styles, id: "repeat-styles", several: "blend", chosen, onchange: () => changed() });
  const regions = job && areas({ masks, id: "repeat-areas", contents, styles, picker });
  const present = () => ({ styles: regions ? regions.styles() : picker.refs(), content_mask: regions?.mask(own[0]) ?? null });
  const first = JSON.stringify(present());
  const label = make("h3", { id: "repeat-styles-title" }, t("repeat.style"));
  const form = {
    element: make("section", { class: "repeat-pictures", "aria-labelledby": label.id }, label, picker.element, regions?.element),
    onchange() {},
    missing: () => picker.missing() || regions?.missing() || "",
    problems: (list) => picker.problems(regions ? regions.problems(list) : list),
    /** `styles` and `content_mask` of a Repeat, or null if they are as before. */
    changes() {
      const now = present();
      return now.styles.length && JSON.stringify(now) !== first ? now : null;
    },
    end() {
      for (const tray of [styles, masks]) for (const item of [...tray.items]) tray.drop(item);
    },
  };
  function changed() {
    regions?.show();
    form.onchange();
  }
  styles.subscribe(() => { picker.show(); changed(); });
  masks.subscribe(changed);
  return form;
}
