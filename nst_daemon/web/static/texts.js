// The texts of the page in the visitor's language, and numbers, dates and durations in its form.
// texts/LANGUAGE.json: sections of keys. `{name}` is a placeholder. A text with plural forms is an object of the
// categories of Intl.PluralRules, chosen by the value `count`.
import { keep, stored } from "./stored.js";

/** Languages, by their own names. */
export const LANGUAGES = { en: "English", de: "Deutsch" };
const STORED = "language";

/** The language in use. */
export const language = [stored(STORED, ""), ...(navigator.languages || [])].map((tag) => (tag || "").slice(0, 2)).find((tag) => tag in LANGUAGES) || "en";
// Of the variants of a language (en-GB), the first one that the browser prefers decides about dates and numbers.
const locale = [...(navigator.languages || [])].find((tag) => tag.slice(0, 2) === language) || language;

/** Choose a language and show the page in it. */
export function setLanguage(chosen) {
  keep(STORED, chosen);
  location.reload();
}

const texts = await fetch(new URL(`texts/${language}.json`, import.meta.url)).then((response) => response.json());
const plural = new Intl.PluralRules(locale);
document.documentElement.lang = language;

/** The text of a key such as "paint.title". Values that are numbers are written in the form of the language. */
export function t(key, values = {}) {
  const [section, ...rest] = key.split(".");
  let text = texts[section]?.[rest.join(".")];
  if (text === undefined) return key; // a test finds these
  if (typeof text === "object") text = text[plural.select(values.count)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (whole, name) => name in values ? shown(values[name]) : whole);
}

/** Whether there is a text for a key, for texts that exist only for some values of the server. */
export const has = (key) => t(key) !== key;

const shown = (value) => typeof value === "number" ? number(value) : String(value);

/** 1,234.5 */
export const number = (value, options = {}) => new Intl.NumberFormat(locale, { maximumSignificantDigits: 4, ...options }).format(value);
/** 63 % */
export const percent = (part) => new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0 }).format(part);
/** A point in time, from seconds since the epoch. */
export const date = (seconds) => new Date(seconds * 1000).toLocaleString(locale, { dateStyle: "medium", timeStyle: "short" });
/** 2026-03-01 17.05: now, for names of files; their order is that of time. */
export const stamp = (now = new Date()) => new Date(now - now.getTimezoneOffset() * 60000).toISOString().slice(0, 16).replace("T", " ").replace(":", ".");
/** a, b and c */
export const enumeration = (items) => new Intl.ListFormat(locale, { type: "conjunction" }).format(items);

/** A number with its unit, which stay in one line. */
const unit = (value, name, digits = 0) => new Intl.NumberFormat(locale, { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: digits }).format(value).replaceAll(" ", "\u00a0");

/** 3.5 s, 4 min, 2 h 5 min, 3 days */
export function duration(seconds) {
  const minutes = Math.round(seconds / 60), hours = Math.floor(minutes / 60);
  if (seconds < 9.95) return unit(Math.max(0, seconds), "second", 1);
  if (seconds < 99.5) return unit(Math.round(seconds), "second");
  if (minutes < 100) return unit(minutes, "minute");
  if (hours < 48) return minutes % 60 ? `${unit(hours, "hour")} ${unit(minutes % 60, "minute")}` : unit(hours, "hour");
  return unit(Math.round(hours / 24), "day");
}

const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
/** 12.3 MB (powers of 1000, as browsers and file managers show it) */
export function bytes(count) {
  let value = count, which = 0;
  for (; value >= 1000 && which < UNITS.length - 1; which++) value /= 1000;
  return unit(value, UNITS[which], value < 100 && which ? 1 : 0);
}

const AGO = [[86400 * 2, "day", 86400], [3600 * 2, "hour", 3600], [90, "minute", 60]];
/** "5 minutes ago"; the exact time after a week. */
export function ago(seconds, now = Date.now() / 1000) {
  const passed = Math.max(0, now - seconds);
  if (passed > 7 * 86400) return date(seconds);
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
  for (const [from, name, length] of AGO) if (passed >= from) return relative.format(-Math.round(passed / length), name);
  return passed < 5 ? relative.format(0, "second") : relative.format(-Math.round(passed), "second");
}
