// The view of batches.
import { make } from "./dom.js";
import { t } from "./texts.js";

export const title = () => t("batches.title");

export function show(place) {
  place.append(make("h1", {}, title()));
}

export function leave() {}
