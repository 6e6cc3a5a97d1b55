// How the texts of an item are shown: as written or formatted, what differs marked, which long ones unfolded.

import { drawTexts, fold, reveal } from "./cards.js";
import { find } from "./dom.js";
import { letter } from "./ranking.js";
import { keep, recall } from "./storage.js";
import { drawPrompt, say, tell } from "./view.js";

const reading = { item: null, raw: recall("triphase raw") === true, base: null, open: new Set(), shown: [] };

export const isRaw = () => reading.raw;

export function begin(item) {
  Object.assign(reading, { item, base: null, open: new Set(), shown: [] });
  find("#raw").hidden = ![...item.prompt, ...item.responses].some((one) => one.blocks);
}

// Tells which responses are on the page; the texts are drawn anew where these are others.
export function show(positions) {
  if (positions.join() === reading.shown.join()) return;
  reading.shown = positions;
  if (reading.base !== null && !positions.includes(reading.base)) reading.base = positions[0];
  drawReading();
}

function drawReading() {
  const told = drawTexts(reading.item.responses, reading);
  if (!told) tell("These texts are too long to mark their differences.", true);
  find("#differences").setAttribute("aria-pressed", String(reading.base !== null));
  find("#raw").setAttribute("aria-pressed", String(reading.raw));
  fold(reading.open);
}

export function toggleDifferences(current) {
  reading.base = reading.base === null ? (reading.shown.includes(current) ? current : reading.shown[0]) : null;
  drawReading();
  say(reading.base === null ? "No differences highlighted" : `Highlighted: what differs from response ${letter(reading.base)}`);
}

// What was chosen stays for the items to come.
export function toggleRaw() {
  reading.raw = !reading.raw;
  keep("triphase raw", reading.raw);
  drawPrompt(reading.item, reading.raw);
  drawReading();
  say(reading.raw ? "Shown as written" : "Shown formatted");
}

export function unfold(position) {
  if (reading.open.has(position)) reading.open.delete(position);
  else reading.open.add(position);
  fold(reading.open);
  reveal(position);
}

export function unfoldAll() {
  reading.open = reading.open.size ? new Set() : new Set(reading.item.responses.keys());
  fold(reading.open);
}

export const refold = () => fold(reading.open);
