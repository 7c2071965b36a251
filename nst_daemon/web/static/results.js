// The view of results.
import { make } from "./dom.js";
import { t } from "./texts.js";

export const title = () => t("results.title");

export function show(place) {
  place.append(make("h1", {}, title()));
}

export function leave() {}
