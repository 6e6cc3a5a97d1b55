// Dragging a response by its handle onto a slot of the ranking, with mouse, pen or finger.

export function makeDraggable(root, onDrop) {
  let held = null;

  function slotAt(x, y) {
    return document.elementFromPoint(x, y)?.closest("[data-slot]") ?? null;
  }

  function mark(slot) {
    for (const one of document.querySelectorAll("[data-slot].over")) one.classList.remove("over");
    slot?.classList.add("over");
  }

  root.addEventListener("pointerdown", (event) => {
    const handle = event.target.closest("[data-drag]");
    if (!handle || event.button > 0) return;
    event.preventDefault();
    held = { position: Number(handle.dataset.drag), x: event.clientX, y: event.clientY, ghost: null, handle };
    handle.setPointerCapture(event.pointerId);
  });

  root.addEventListener("pointermove", (event) => {
    if (!held) return;
    if (!held.ghost) {
      if (Math.hypot(event.clientX - held.x, event.clientY - held.y) < 5) return;
      held.ghost = document.createElement("div");
      held.ghost.className = "ghost";
      held.ghost.textContent = String.fromCharCode(65 + held.position);
      held.ghost.setAttribute("aria-hidden", "true");
      document.body.append(held.ghost);
      document.body.classList.add("dragging");
    }
    held.ghost.style.transform = `translate(${event.clientX - 22}px, ${event.clientY - 22}px)`;
    mark(slotAt(event.clientX, event.clientY));
  });

  function finish(event, canceled) {
    if (!held) return;
    const { position, ghost } = held;
    held = null;
    mark(null);
    document.body.classList.remove("dragging");
    if (!ghost) return;
    ghost.remove();
    const slot = canceled ? null : slotAt(event.clientX, event.clientY);
    if (slot) onDrop(position, slot.dataset.slot === "none" ? null : Number(slot.dataset.slot));
  }

  root.addEventListener("pointerup", (event) => finish(event, false));
  root.addEventListener("pointercancel", (event) => finish(event, true));
}
