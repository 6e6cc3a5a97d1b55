// The dialogs for skipping, flagging, guidelines and keys. Digits choose, Enter confirms, Escape closes.

const find = (selector) => document.querySelector(selector);

export function isOpen() {
  return document.querySelector("dialog:modal") !== null;
}

export function openHelp(name) {
  find(`#${name}`).showModal();
}

// Asks for a reason and a note; resolves to null where the person thinks better of it.
export function ask(name, title) {
  const dialog = find(`#${name}`);
  const form = dialog.querySelector("form");
  form.reset();
  dialog.querySelector("h2").textContent = title;
  dialog.returnValue = "";
  const confirm = form.querySelector("[value=ok]");
  dialog.showModal();
  dialog.querySelector("input[type=radio]").focus();
  return new Promise((done) => {
    function keys(event) {
      if (event.target.matches("textarea")) {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(confirm);
        return;
      }
      const choice = /^[1-9]$/.test(event.key) ? dialog.querySelectorAll("input[type=radio]")[Number(event.key) - 1] : null;
      if (choice) {
        choice.checked = true;
        choice.focus();
        event.preventDefault();
      } else if (event.key === "Enter" && !event.target.matches("button")) {
        event.preventDefault();
        form.requestSubmit(confirm);
      }
    }
    dialog.addEventListener("keydown", keys);
    dialog.addEventListener("close", () => {
      dialog.removeEventListener("keydown", keys);
      const values = new FormData(form);
      done(dialog.returnValue === "ok" ? { reason: values.get("reason"), note: values.get("note") ?? "" } : null);
    }, { once: true });
  });
}

for (const dialog of document.querySelectorAll("dialog")) {
  for (const button of dialog.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => dialog.close(""));
  }
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close("");
  });
}
