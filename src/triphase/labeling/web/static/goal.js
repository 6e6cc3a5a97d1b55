// A goal for today that a labeler sets for themselves: kept in this browser, shown beside the progress, asked of nobody.

import { find } from "./dom.js";
import { forget, keep, recall } from "./storage.js";

const KEY = "triphase goal";

export function goal() {
  const value = recall(KEY);
  return Number.isInteger(value) && value > 0 ? value : null;
}

// "12 of 30 today · about 6 min to go", by one's own median time; without a goal what is waiting.
export function progressText({ done, today, left, median_seconds: seconds }) {
  const wanted = goal();
  if (wanted === null) {
    const parts = [`${today} today`, `${done} in all`];
    if (seconds !== null) parts.push(`${Math.round(seconds)} s each`);
    parts.push(left ? `${left} waiting` : "none waiting");
    return parts.join(" · ");
  }
  if (today >= wanted) return `Your goal of ${wanted} is reached: ${today} today`;
  if (!left) return `${today} of ${wanted} today · none waiting`;
  const rest = Math.min(wanted - today, left);
  const minutes = seconds === null ? null : Math.max(1, Math.round((rest * seconds) / 60));
  return `${today} of ${wanted} today${minutes === null ? "" : ` · about ${minutes} min to go`}`;
}

export function progressShare({ done, today, left }) {
  const wanted = goal();
  return wanted === null ? [done, Math.max(done + left, 1)] : [Math.min(today, wanted), wanted];
}

// Asks for the goal; 0 or nothing is none. `changed` is called when there is another one.
export function askGoal(changed) {
  const dialog = find("#goal-dialog");
  const field = find("#goal-number");
  field.value = goal() ?? "";
  dialog.returnValue = "";
  dialog.showModal();
  field.select();
  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "ok") return;
    const value = Number(field.value);
    if (Number.isInteger(value) && value > 0) keep(KEY, value);
    else forget(KEY);
    changed();
  }, { once: true });
}
