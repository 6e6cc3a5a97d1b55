// The guidelines: a panel beside the work on a wide screen, a dialog on a small one; each new version opens once.

import { attempt } from "./api.js";
import { written } from "./formatted.js";

const dialog = document.querySelector("#guidelines-dialog");
const wide = window.matchMedia("(min-width: 75rem)");
const keep = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private mode */ } };
const recall = (key) => { try { return localStorage.getItem(key); } catch { return null; } };

function open() {
  const before = document.activeElement;
  if (wide.matches) {
    dialog.show();
    document.body.classList.add("guided");
    before?.focus({ preventScroll: true });
  } else dialog.showModal();
}

export function toggleGuide() {
  if (dialog.open) dialog.close();
  else open();
  keep("triphase guide", dialog.open ? "open" : "closed");
}

const title = dialog.querySelector("h2");
const prose = dialog.querySelector(".prose");
const own = { version: dialog.dataset.version, title: [...title.childNodes], prose: [...prose.childNodes] };
const fetched = new Map();
let wanted = own.version;

function put(version, titleNodes, proseNodes) {
  dialog.dataset.version = version;
  title.replaceChildren(...titleNodes);
  prose.replaceChildren(...proseNodes);
}

// The guidelines of an item's campaign in place of the main task's; those of each version open once.
export async function guideFor(task) {
  wanted = String(task?.guideline ?? own.version);
  if (wanted === dialog.dataset.version) return;
  if (wanted === own.version) {
    put(own.version, own.title, own.prose);
    return;
  }
  const version = wanted;
  if (!fetched.has(version)) {
    const found = await attempt("GET", `/api/guidelines?campaign=${encodeURIComponent(task.campaign)}`);
    if (!found) return;
    fetched.set(version, found);
  }
  if (version !== wanted) return; // another item has come meanwhile
  const { text, blocks } = fetched.get(version);
  put(version, [`Guidelines: ${task.campaign}`], [written(text, blocks, false)]);
  const key = `triphase guide seen ${task.campaign}`;
  const fresh = recall(key) !== version;
  keep(key, version);
  if (fresh && !dialog.open) open();
}

// At the first item: what is new is shown, and what was left open stays open where there is room for it.
export function greet() {
  const version = own.version;
  const fresh = version !== "0" && recall("triphase guide seen") !== version;
  keep("triphase guide seen", version);
  if (fresh || (wide.matches && recall("triphase guide") === "open")) open();
}

dialog.addEventListener("close", () => document.body.classList.remove("guided"));
dialog.querySelector("[data-close]").addEventListener("click", () => keep("triphase guide", "closed"));
wide.addEventListener("change", () => dialog.close());
