// Requests to the REST API. Errors are `ApiError`s with the words of the server.
import { t } from "./texts.js";

const ROOT = "/api/v1";
const PATIENCE = 30000; // milliseconds until a request counts as failed

/** An error of the server, or that it does not answer (status 0). `field`: the part of the request, such as settings.size. */
export class ApiError extends Error {
  constructor(status, { error, cause = "", remedy = "", field = "" }) {
    super(error);
    Object.assign(this, { status, cause: cause || error, remedy, field });
  }
}

/** The address of a path below /api/v1, for requests, links and pictures. Parameters that are null or "" are left out. */
export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") query.append(name, one);
  const text = query.toString();
  return `${ROOT}${path}${text ? `?${text}` : ""}`;
}

export const get = (path, parameters, { signal } = {}) => request("GET", address(path, parameters), undefined, signal);
export const post = (path, body, { signal } = {}) => request("POST", address(path), body, signal);
export const remove = (path) => request("DELETE", address(path));

async function request(method, url, body, signal) {
  const limit = AbortSignal.timeout(PATIENCE);
  const options = { method, signal: signal ? AbortSignal.any([signal, limit]) : limit, headers: { Accept: "application/json" } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw passed(new ApiError(0, { error: t("frame.no_answer") }));
  }
  return answer(response.status, await response.text());
}

function answer(status, text) {
  let data = null;
  try { data = text ? JSON.parse(text) : null; } catch { /* not of the API: a proxy's page */ }
  if (status >= 200 && status < 300) return data;
  if (status === 401) signedOut();
  throw passed(new ApiError(status, data?.error ? data : { error: t("frame.answered", { status }) }));
}

/** Whether an error may pass by itself: no answer, a restart, a folder that is not mounted, a full disk. */
export const mayPass = (error) => [0, 502, 503, 504, 507].includes(error.status);

/** Called with every error that may pass by itself; the store sets it. */
export const trouble = { listener: () => {} };
function passed(error) {
  if (mayPass(error)) trouble.listener(error);
  return error;
}

let leaving = false;
/** The token is not valid any more: the server sends the login page instead. */
function signedOut() {
  if (leaving || document.body.classList.contains("login")) return;
  leaving = true;
  location.reload();
}

/**
 * Upload a file. `progress(part)`: 0 to 1. Returns a promise of UploadInfo.
 * XMLHttpRequest reports the progress of an upload; fetch does not.
 */
export function upload(file, { name = file.name, progress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", address("/uploads", { name }));
    sending.setRequestHeader("Content-Type", "application/octet-stream");
    sending.upload.addEventListener("progress", (event) => { if (event.lengthComputable) progress(event.loaded / event.total); });
    sending.addEventListener("load", () => { try { resolve(answer(sending.status, sending.responseText)); } catch (error) { reject(error); } });
    sending.addEventListener("error", () => reject(new ApiError(0, { error: t("frame.no_answer") })));
    sending.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
    signal?.addEventListener("abort", () => sending.abort());
    sending.send(file);
  });
}
