// The page for visitors without a token.
import { post } from "./api.js";
import { make } from "./dom.js";
import { t } from "./texts.js";

const field = make("input", { id: "token", type: "password", required: true, autofocus: true, autocomplete: "current-password", "aria-describedby": "wrong" });
const wrong = make("p", { id: "wrong", class: "problem", role: "alert" });
const send = make("button", { class: "button primary" }, t("login.send"));

async function submit(event) {
  event.preventDefault();
  send.disabled = true;
  wrong.textContent = "";
  try {
    await post("/session", { token: field.value.trim() });
    location.reload();
  } catch (error) {
    wrong.textContent = error.status === 401 ? t("login.wrong") : error.message;
    field.select();
  } finally {
    send.disabled = false;
  }
}

document.body.classList.add("login");
document.body.append(make("main", {}, make("form", { class: "card", on: { submit } },
  make("img", { src: new URL("icon.svg", import.meta.url).href, alt: "", width: 48, height: 48 }),
  make("h1", {}, "nst-daemon"), make("label", { for: "token" }, t("login.token")), field, make("p", { class: "help" }, t("login.help")), wrong, send)));
field.focus();
