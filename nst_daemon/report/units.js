"use strict";
// The same texts as in nst_daemon/units.py.
const duration = (seconds) => {
  const whole = Math.max(0, Math.round(seconds)), minutes = Math.round(seconds / 60);
  const two = (number, base, large, small) => `${Math.floor(number / base)} ${large}` + (number % base ? ` ${String(number % base).padStart(2, "0")} ${small}` : "");
  if (whole < 120) return `${seconds > 0 && seconds < 9.95 ? Math.round(seconds * 10) / 10 : whole} s`;
  if (whole < 600) return two(whole, 60, "min", "s");
  if (minutes < 120) return `${minutes} min`;
  return minutes < 48 * 60 ? two(minutes, 60, "h", "min") : `${Math.floor(minutes / 1440)} days`;
};
const size = (bytes) => {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes, unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${value < 100 ? Math.floor(value * 10) / 10 : Math.floor(value)} ${units[unit]}`;
};
const rate = (perSecond) => `${perSecond >= 10 ? perSecond.toFixed(0) : Number(perSecond.toPrecision(2))} it/s`;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const clock = (date) => date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
