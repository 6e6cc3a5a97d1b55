// The labeler's page: one item at a time, by keyboard, by mouse or by finger.

import { attempt, call, Refused } from "./api.js";
import { drawTexts, fold, reveal } from "./cards.js";
import { ask, isOpen, openHelp } from "./dialogs.js";
import { find } from "./dom.js";
import { makeDraggable } from "./drag.js";
import { greet, toggleGuide } from "./guide.js";
import { canonical, empty, letter, move, ordinal, place, spoken, tie, unranked } from "./ranking.js";
import { Timer } from "./timer.js";
import { drawItem, drawNothing, drawProgress, drawPrompt, drawRanking, say, tell } from "./view.js";

const options = find("#options").dataset;
const askQuality = options.askQuality === "yes";
const askStrength = options.askStrength === "yes";
const state = { item: null, places: [], quality: [], strength: null, current: 0, last: null, note: "", back: null };
const timer = new Timer((seconds) => (find("#clock").textContent = clock(seconds)));
let busy = false;
let warned = false;
let saving = null;
let awaitingQuality = false;
// How the texts are shown: as written or formatted, what differs from which response marked, which long ones unfolded.
const reading = { raw: false, base: null, open: new Set() };
const hasBlocks = (item) => [...item.prompt, ...item.responses].some((one) => one.blocks);

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

const keep = (key, value) => { try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* private mode */ } };
const recall = (key) => { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } };
const forget = (key) => { try { localStorage.removeItem(key); } catch { /* private mode */ } };
const draftKey = () => `triphase draft ${state.item.assignment}`;

function content() {
  return {
    places: state.places, quality: askQuality ? state.quality : [], strength: state.strength,
    note: find("#note").value, seconds: timer.read(),
  };
}

function show(item, draft, back = null) {
  const count = item.responses.length;
  Object.assign(state, {
    item, back, places: draft?.places?.length === count ? [...draft.places] : empty(count),
    quality: draft?.quality?.length === count ? [...draft.quality] : empty(count),
    strength: draft?.strength ?? null, current: 0, last: null,
  });
  find("#note").value = draft?.note ?? "";
  showNote(Boolean(draft?.note));
  warned = false;
  Object.assign(reading, { base: null, open: new Set() });
  drawItem(item, askQuality, reading.raw);
  find("#raw").hidden = !hasBlocks(item);
  drawReading();
  find("#editing").hidden = back === null;
  find("#skip").hidden = back !== null;
  find("#submit").textContent = back === null ? "Submit" : "Save the correction";
  timer.restart(draft?.seconds ?? 0);
  draw();
  find("#reading").scrollTo({ top: 0 });
  find("#prompt").focus({ preventScroll: true });
  say(`New item. ${count} responses.`);
}

function draw() {
  drawRanking(state);
}

// The texts anew, and folds where they are long now.
function drawReading() {
  const shown = state.places.map((_, position) => position);
  const told = drawTexts(state.item.responses, { ...reading, shown });
  if (!told) tell("These texts are too long to mark their differences.", true);
  find("#differences").setAttribute("aria-pressed", String(reading.base !== null));
  find("#raw").setAttribute("aria-pressed", String(reading.raw));
  fold(reading.open);
}

function differences() {
  reading.base = reading.base === null ? state.current : null;
  drawReading();
  say(reading.base === null ? "No differences marked" : `Marked: what differs from response ${letter(reading.base)}`);
}

// As it was written, or formatted; what was chosen stays for the items to come.
function toggleRaw() {
  reading.raw = !reading.raw;
  keep("triphase raw", reading.raw);
  drawPrompt(state.item, reading.raw);
  drawReading();
  say(reading.raw ? "Shown as written" : "Shown formatted");
}

function unfold(position) {
  if (reading.open.has(position)) reading.open.delete(position);
  else reading.open.add(position);
  fold(reading.open);
  reveal(position);
}

function unfoldAll() {
  const all = state.places.map((_, position) => position);
  reading.open = reading.open.size ? new Set() : new Set(all);
  fold(reading.open);
}

function showNote(open) {
  find("#note").hidden = !open;
  find("#note-toggle").setAttribute("aria-expanded", String(open));
}

function writeNote() {
  showMore(true);
  showNote(true);
  find("#note").focus();
}

function showMore(open = !find("#desk").classList.contains("all")) {
  find("#desk").classList.toggle("all", open);
  find("#more-toggle").setAttribute("aria-expanded", String(open));
}

function changed(message) {
  warned = false;
  tell("");
  draw();
  say(message ?? spoken(state.places));
  if (state.back !== null) return;
  keep(draftKey(), content());
  clearTimeout(saving);
  const assignment = state.item.assignment;
  saving = setTimeout(async () => {
    if (state.item?.assignment !== assignment || state.back !== null) return;
    const kept = await attempt("PUT", "/api/drafts", { assignment, ...content() });
    find("#saved").textContent = kept?.kept ? "draft saved" : "draft kept in this browser";
  }, 600);
  find("#saved").textContent = "";
}

function focusCard(position) {
  const count = state.places.length;
  state.current = (position + count) % count;
  draw();
  const card = find(`[data-card="${state.current}"]`);
  card.focus({ preventScroll: true });
  reveal(state.current);
}

// After a click: the keys go to the response again, not to the button (Enter submits).
function focusQuietly(position) {
  state.current = position;
  draw();
  find(`[data-card="${position}"]`)?.focus({ preventScroll: true });
}

function setPlace(position, value, advance = false) {
  state.places = place(state.places, position, value);
  state.last = value === null ? state.last : position;
  state.current = position;
  changed(value === null ? `Response ${letter(position)} not ranked` : `Response ${letter(position)} ${ordinal(value)}`);
  if (advance && value !== null) advanceFrom(position);
}

function advanceFrom(position) {
  const rest = unranked(state.places);
  if (rest.length) focusCard(rest.find((one) => one > position) ?? rest[0]);
  else say(`${spoken(state.places)}. Enter submits.`);
}

function choosePair(better) {
  state.places = better === null ? [1, 1] : better === 0 ? [1, 2] : [2, 1];
  state.current = better ?? state.current;
  changed();
}

async function receive(answer) {
  const item = answer.item;
  if (!item) {
    state.item = null;
    drawNothing("There is nothing left for you at the moment. Thank you! New items appear here when they come.");
  } else {
    show(item, recall(`triphase draft ${item.assignment}`) ?? item.draft);
  }
  const progress = await attempt("GET", "/api/progress");
  if (progress) drawProgress(progress);
}

async function during(work) {
  if (busy) return;
  busy = true;
  document.body.classList.add("busy");
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell(error.message, true);
    say(error.message);
    if (error.status === 409) await receive(await call("GET", "/api/next"));
    if (error.status === 403) drawNothing(error.message);
  } finally {
    busy = false;
    document.body.classList.remove("busy");
  }
}

async function submit() {
  const rest = unranked(state.places);
  if (state.places.length - rest.length < 2) {
    tell("Rank at least two responses, or skip (S).", true);
    say("Rank at least two responses, or skip.");
    return;
  }
  if (rest.length && !warned) {
    warned = true;
    const names = rest.map(letter).join(", ");
    tell(`${names} ${rest.length > 1 ? "have" : "has"} no place. Enter again submits without.`);
    say("Some responses have no place. Enter again submits without.");
    return;
  }
  clearTimeout(saving);
  await during(async () => {
    const body = { ...content(), places: canonical(state.places), next: true };
    if (state.back !== null) body.corrects = state.item.ranking;
    else Object.assign(body, { assignment: state.item.assignment, receipt: state.item.receipt });
    const key = state.back === null ? draftKey() : null;
    const answer = await call("POST", "/api/answers", body);
    if (key) forget(key);
    tell(answer.status === "late"
      ? "Your time for this item had run out and another labeler has it; your answer is kept beside." : "");
    await receive(answer);
  });
}

async function undo() {
  const back = state.back === null ? 0 : state.back + 1;
  await during(async () => {
    const { answer } = await call("GET", `/api/history?back=${back}`);
    if (!answer) {
      tell(back ? "There is nothing further back." : "You have not submitted anything yet.");
      return;
    }
    show({ ...answer, assignment: null }, answer, back);
    say("Your earlier answer. Change it, then Enter saves the correction; Escape leaves it as it was.");
  });
}

async function skip() {
  if (state.back !== null) return;
  const given = await ask("skip-dialog", "Skip this item");
  if (!given) return;
  await during(async () => receive(await call("POST", "/api/skips", { assignment: state.item.assignment, ...given })));
}

async function flag(position) {
  if (state.back !== null) {
    tell("Flags are for the item at hand; leave the correction first (Escape).", true);
    return;
  }
  const what = position === null ? "the prompt" : `response ${letter(position)}`;
  const given = await ask("flag-dialog", `Flag ${what}`);
  if (!given) return;
  await during(async () => {
    await call("POST", "/api/flags", { assignment: state.item.assignment, position, ...given });
    tell(`Flagged ${what}. The lead will see it; you can go on ranking, or skip.`);
    say(`Flagged ${what}.`);
  });
}

const leave = () => during(async () => receive(await call("GET", "/api/next")));

function digit(value) {
  if (awaitingQuality && value <= 7) {
    awaitingQuality = false;
    state.quality[state.current] = value;
    changed(`Quality ${value} for response ${letter(state.current)}`);
  } else if (state.places.length === 2 && value <= 2) choosePair(value - 1);
  else if (value <= state.places.length) setPlace(state.current, value, true);
}

function arrow(key) {
  if (state.places.length === 2 && (key === "ArrowLeft" || key === "ArrowRight")) {
    choosePair(key === "ArrowLeft" ? 0 : 1);
    return;
  }
  if (key === "ArrowLeft" || key === "ArrowRight") {
    focusCard(state.current + (key === "ArrowLeft" ? -1 : 1));
    return;
  }
  state.places = move(state.places, state.current, key === "ArrowUp" ? -1 : 1);
  state.last = state.current;
  changed();
}

function strengthen(step) {
  if (!askStrength) return;
  state.strength = Math.max(1, Math.min(4, (state.strength ?? (step > 0 ? 0 : 2)) + step));
  changed(find(`[data-strength="${state.strength}"]`).textContent);
}

const KEYS = {
  Enter: submit,
  "=": () => {
    if (state.places.length === 2) choosePair(null);
    else {
      const position = state.current;
      state.places = tie(state.places, position, state.last);
      state.last = position;
      changed();
      advanceFrom(position);
    }
  },
  0: () => setPlace(state.current, null),
  Backspace: () => setPlace(state.current, null),
  u: undo,
  s: skip,
  f: () => flag(state.current),
  p: () => flag(null),
  g: toggleGuide,
  "?": () => openHelp("keys-dialog"),
  q: () => { awaitingQuality = askQuality; if (askQuality) say("Quality: 1 to 7"); },
  "+": () => strengthen(1),
  "-": () => strengthen(-1),
  n: writeNote,
  d: differences,
  r: toggleRaw,
  o: () => unfold(state.current),
  m: () => showMore(),
  Escape: () => { if (state.back !== null) leave(); },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isOpen()) return;
  if (event.target.matches("textarea, input, select")) {
    if (event.key === "Escape") find("#prompt").focus();
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const onButton = event.target.closest("button, a, summary") !== null;
  if (onButton && (key === "Enter" || key === " ")) return;
  if (!state.item && key !== "?" && key !== "g" && key !== "u") return;
  if (busy) { event.preventDefault(); return; }
  if (event.shiftKey && key === "o") unfoldAll();
  else if (/^[1-9]$/.test(key)) digit(Number(key));
  else if (key.startsWith("Arrow")) arrow(key);
  else if (key in KEYS) KEYS[key]();
  else return;
  if (key !== "q" && !/^[1-9]$/.test(key)) awaitingQuality = false;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  const target = event.target.closest("button, [data-card]");
  if (!target || busy) return;
  const data = target.dataset;
  if (data.place) {
    const position = Number(data.position);
    if (state.places.length === 2) choosePair(Number(data.place) === 1 ? position : 1 - position);
    else setPlace(position, state.places[position] === Number(data.place) ? null : Number(data.place));
    focusQuietly(position);
  } else if (data.quality) {
    state.quality[Number(data.position)] = Number(data.quality);
    changed();
    focusQuietly(Number(data.position));
  } else if (data.strength) {
    state.strength = state.strength === Number(data.strength) ? null : Number(data.strength);
    changed();
    focusQuietly(state.current);
  } else if (data.flag) flag(data.flag === "prompt" ? null : Number(data.flag));
  else if (data.act === "tie") { choosePair(null); focusQuietly(state.current); }
  else if (data.act) ({
    submit, skip, undo, leave, differences, raw: toggleRaw, help: () => openHelp("keys-dialog"), guide: toggleGuide,
    note: () => (find("#note").hidden ? writeNote() : showNote(false)), more: () => showMore(),
  })[data.act]();
  else if (data.fold) unfold(Number(data.fold));
  else if (data.card) { state.current = Number(data.card); draw(); }
});

document.addEventListener("focusin", (event) => {
  const card = event.target.closest?.("[data-card]");
  if (card && state.item) { state.current = Number(card.dataset.card); draw(); }
});

find("#note").addEventListener("input", () => changed(""));
reading.raw = recall("triphase raw") === true;
makeDraggable(document.body, (position, value) => setPlace(position, value));
during(async () => {
  await receive(await call("GET", "/api/next"));
  greet();
});
window.addEventListener("resize", () => { if (state.item) fold(reading.open); });
setInterval(() => { if (!state.item && !busy && !document.hidden) leave(); }, 30000);
