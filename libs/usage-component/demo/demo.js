// A host page. Its server answers `host.json` and signs tokens at `token`; see the package's README.
import "../nexus-usage.js";

const { usage_api: src, users, meters, texts } = await (await fetch("host.json")).json();
const usage = document.querySelector("nexus-usage");
const user = document.querySelector("#user");
const theme = document.querySelector("#theme");

user.append(...users.map(({ id, name }) => new Option(name, id)));
user.addEventListener("change", signIn);
theme.addEventListener("change", () => {
  document.documentElement.dataset.theme = theme.value;
  usage.setAttribute("theme", theme.value);
});

usage.setAttribute("src", src);
usage.meters = meters;
usage.texts = texts ?? {};
usage.tokenProvider = async () => {
  const response = await fetch(`token?user=${encodeURIComponent(user.value)}`, { method: "POST" });
  if (!response.ok) throw new Error(`no token: ${response.status}`);
  return (await response.json()).token;
};

// In a platform of your own, the session says who is signed in, and not the page.
function signIn() {
  usage.token = null;
}
