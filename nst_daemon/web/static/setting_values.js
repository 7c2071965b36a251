// Values of settings as a person writes them: 0.5 · [30, 30, 20] as "30, 30, 20" · {relu1_1: 1} as "relu1_1: 1".

/** The value that a text means for a setting. A text that means nothing is sent as it is: the server says what is wrong. */
export function readValue(setting, text) {
  if (setting.choices.includes(text)) return text;
  if (setting.kind === "list") return listOf(text);
  if (setting.kind === "mapping") return mappingOf(text);
  if (setting.kind === "integer" || setting.kind === "number") return numberOf(text);
  return text;
}

/** The text of a value. */
export function writeValue(value) {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) return value.length ? value.map(writeValue).join(", ") : "–";
  if (typeof value === "object") return Object.entries(value).map(([key, one]) => `${key}: ${writeValue(one)}`).join(", ");
  return String(value);
}

/** A number with a decimal point or comma; anything else stays text. */
function numberOf(text) {
  const plain = text.replace(/^([+-]?\d+),(\d+)$/, "$1.$2");
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : text;
}

const parts = (text) => text.replace(/^[[{]|[\]}]$/g, "").split(/[,;]/).map((part) => part.trim()).filter(Boolean);

const listOf = (text) => parts(text).map(numberOf);

function mappingOf(text) {
  const pairs = parts(text).map((part) => part.split(/\s*[:=]\s*/));
  return pairs.every((pair) => pair.length === 2) ? Object.fromEntries(pairs.map(([key, value]) => [key, numberOf(value)])) : text;
}
