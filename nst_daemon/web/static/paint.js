// The view of paint.
import { make } from "./dom.js";
import { t } from "./texts.js";

export const title = () => t("paint.title");

export function show(place) {
  place.append(make("h1", {}, title()));
}

export function leave() {}
