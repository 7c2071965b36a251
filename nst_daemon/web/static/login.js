// The page for visitors without a token.
import { get, post } from "./api.js";
import { make } from "./dom.js";
import { t } from "./texts.js";

const field = make("input", { id: "token", type: "password", required: true, autocomplete: "current-password", "aria-describedby": "wrong" });
// Password managers store a token only with the name of a user.
const user = make("input", { type: "text", name: "username", autocomplete: "username", value: "nst-daemon", hidden: true });
const wrong = make("p", { id: "wrong", class: "problem", role: "alert" });
const send = make("button", { class: "button primary" }, t("login.send"));

async function submit(event) {
  event.preventDefault();
  send.disabled = true;
  say("");
  try {
    await post("/session", { token: field.value.trim() });
    if (await get("/session").catch(() => null)) location.reload();
    else say(t("login.no_cookie"));
  } catch (error) {
    say(error.status === 401 ? t("login.wrong") : error.status === 429 ? t("login.slow") : error.message);
    field.select();
  } finally {
    send.disabled = false;
  }
}

function say(problem) {
  wrong.textContent = problem;
  field.setAttribute("aria-invalid", String(Boolean(problem)));
}

document.body.classList.add("login");
document.body.append(make("main", {}, make("form", { class: "card", on: { submit } },
  make("img", { src: new URL("icon.svg", import.meta.url).href, alt: "", width: 48, height: 48 }),
  make("h1", {}, "nst-daemon"), user, make("label", { for: "token" }, t("login.token")), field, make("p", { class: "help" }, t("login.help")), wrong, send)));
field.focus();
