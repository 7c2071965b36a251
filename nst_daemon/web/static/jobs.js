// The view of jobs.
import { make } from "./dom.js";
import { t } from "./texts.js";

export const title = () => t("jobs.title");

export function show(place) {
  place.append(make("h1", {}, title()));
}

export function leave() {}
