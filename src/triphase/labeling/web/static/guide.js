// The guidelines: a panel beside the work on a wide screen, a dialog on a small one; each new version opens once.

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

// At the first item: what is new is shown, and what was left open stays open where there is room for it.
export function greet() {
  const version = dialog.dataset.version;
  const fresh = version !== "0" && recall("triphase guide seen") !== version;
  keep("triphase guide seen", version);
  if (fresh || (wide.matches && recall("triphase guide") === "open")) open();
}

dialog.addEventListener("close", () => document.body.classList.remove("guided"));
dialog.querySelector("[data-close]").addEventListener("click", () => keep("triphase guide", "closed"));
wide.addEventListener("change", () => dialog.close());
