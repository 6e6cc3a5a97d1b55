// The labeler's page: one item at a time, by keyboard, by mouse or by finger.

import { attempt, call, Refused } from "./api.js";
import { reveal, showRewriting } from "./cards.js";
import { ask, isOpen, openHelp } from "./dialogs.js";
import { find } from "./dom.js";
import { makeDraggable } from "./drag.js";
import { askGoal } from "./goal.js";
import { greet, guideFor, toggleGuide } from "./guide.js";
import { answered, mostQuestions, question } from "./insertion.js";
import { canonical, empty, letter, move, ordinal, place, placesOfRatings, spoken, tie, unranked } from "./ranking.js";
import * as reading from "./reading.js";
import { keep, forget, recall } from "./storage.js";
import { Timer } from "./timer.js";
import { drawItem, drawNothing, drawProgress, drawQuestion, drawRanking, drawTask, say, showMore, showNote, tell } from "./view.js";

const options = find("#options").dataset;
const askQuality = options.askQuality === "yes";
const askRewrite = options.askRewrite === "yes";
const criteria = JSON.parse(options.criteria);
const MOST_REWRITTEN = Number(options.mostRewritten);
const askStrength = options.askStrength === "yes";
const state = {
  item: null, places: [], quality: [], strength: null, current: 0, last: null, note: "", back: null,
  ratings: [], rewrites: [], inserting: null, asked: [], two: recall("triphase two") === true, rating: false,
};
const timer = new Timer((seconds) => (find("#clock").textContent = clock(seconds)));
let busy = false;
let warned = false;
let saving = null;
let awaitingQuality = false;
function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

const draftKey = () => `triphase draft ${state.item.assignment}`;

function content() {
  return {
    places: state.places, quality: askQuality || state.rating ? state.quality : [], strength: state.strength,
    note: find("#note").value, seconds: timer.read(), inserting: state.inserting,
    ratings: Object.fromEntries(criteria.map((name, index) => [name, state.ratings[index]])),
    rationale: find("#rationale")?.value ?? "", rewrites: askRewrite ? rewritten() : [],
  };
}

// What was written in place of responses; null where nothing is, or it is as it was.
function rewritten() {
  return state.rewrites.map((text, position) => (text && text !== state.item.responses[position].text ? text : null));
}

function rewrite(position) {
  if (!askRewrite) return;
  const field = find(`[data-rewrite-text="${position}"]`);
  const used = state.rewrites.reduce((sum, text, other) => sum + (other === position ? 0 : (text ?? "").length), 0);
  if (!field.value && used + state.item.responses[position].text.length > MOST_REWRITTEN) {
    tell(`This response is too long to be rewritten here: all that is rewritten holds ${MOST_REWRITTEN} characters.`, true);
    return;
  }
  if (!field.value) field.value = state.rewrites[position] = state.item.responses[position].text;
  showRewriting(position, field.closest(".rewriting").hidden);
}

function showRemarks(draft, count) {
  state.ratings = criteria.map((name) => draft?.ratings?.[name]?.length === count ? [...draft.ratings[name]] : empty(count));
  state.rewrites = draft?.rewrites?.length === count ? [...draft.rewrites] : empty(count);
  if (find("#rationale")) find("#rationale").value = draft?.rationale ?? "";
}

function show(item, draft, back = null) {
  const count = item.responses.length;
  Object.assign(state, {
    item, back, places: draft?.places?.length === count ? [...draft.places] : empty(count),
    quality: draft?.quality?.length === count ? [...draft.quality] : empty(count),
    strength: draft?.strength ?? null, current: 0, last: null, inserting: draft?.inserting ?? null, asked: [],
  });
  find("#note").value = draft?.note ?? "";
  showNote(Boolean(draft?.note));
  warned = false;
  showRemarks(draft, count);
  state.rating = item.task?.kind === "rating";
  drawItem(item, { askQuality: askQuality || state.rating, askRewrite, criteria }, reading.isRaw());
  drawTask(item.task ?? null);
  guideFor(item.task ?? null);
  state.rewrites.forEach((text, position) => { if (text && askRewrite) find(`[data-rewrite-text="${position}"]`).value = text; });
  reading.begin(item);
  find("#editing").hidden = back === null;
  find("#skip").hidden = back !== null;
  find("#submit").textContent = back === null ? "Submit" : "Save the correction";
  timer.restart(draft?.seconds ?? 0);
  draw();
  find("#reading").scrollTo({ top: 0 });
  find("#prompt").classList.add("arrived"); // it has the focus so that reading begins there: no ring until one comes by Tab
  find("#prompt").focus({ preventScroll: true });
  say(`New item. ${count} responses.`);
}

// The question at hand where two are shown at a time, else null.
function asking() {
  const apart = state.two && !state.rating && state.item !== null && state.back === null && state.places.length > 2;
  return apart ? question(state.places, state.inserting) : null;
}

// A key too many after the last question, whose number nobody can foresee: the ranking stays as it was answered.
function refuseMore() {
  const done = state.two && state.asked.length > 0 && !asking();
  if (done) {
    tell("All questions are answered: press Enter to submit, Backspace to take the last answer back, T to change the places.");
    say("All questions are answered. Press Enter to submit.");
  }
  return done;
}

function draw() {
  const asked = asking();
  drawRanking(state);
  drawQuestion(asked, state.asked.length + 1, asked ? state.asked.length + mostQuestions(state.places, state.inserting) : 0);
  find("#two").hidden = state.places.length < 3 || state.rating || state.back !== null;
  find("#two").setAttribute("aria-pressed", String(state.two));
  reading.show(asked ? [asked.left, asked.right] : state.places.map((_, position) => position));
}

function toggleTwo() {
  if (state.places.length < 3 || state.rating || state.back !== null) return;
  state.two = !state.two;
  keep("triphase two", state.two);
  draw();
  if (asking()) askNext();
  else say(`All responses. ${spoken(state.places)}`);
}

// Which of the two on the page is better: "left", "right", or null where they are equal.
function answerPair(side) {
  const asked = asking();
  const { places, inserting } = state;
  state.asked.push({ places, inserting });
  Object.assign(state, answered(places, inserting, side === null ? null : asked[side]));
  changed("");
  askNext();
}

function takeBack() {
  if (!state.asked.length) return;
  Object.assign(state, state.asked.pop());
  changed("");
  askNext();
}

function askNext() {
  const asked = asking();
  if (asked) {
    focusCard(asked.left);
    say(`Which is better, ${letter(asked.left)} or ${letter(asked.right)}?`);
  } else {
    focusCard(state.places.indexOf(1));
    tell(`Ranked: ${spoken(state.places)}. Press Enter to submit.`);
    say(`Ranked: ${spoken(state.places)}. Press Enter to submit.`);
  }
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

function writeNote() {
  showMore(true);
  showNote(true);
  find("#note").focus();
}

function setPlace(position, value, advance = false) {
  state.places = place(state.places, position, value);
  state.inserting = null;
  state.last = value === null ? state.last : position;
  state.current = position;
  changed(value === null ? `Response ${letter(position)} not ranked` : `Response ${letter(position)} ${ordinal(value)}`);
  if (advance && value !== null) advanceFrom(position);
}

function advanceFrom(position) {
  const rest = unranked(state.places);
  if (rest.length) focusCard(rest.find((one) => one > position) ?? rest[0]);
  else say(`${spoken(state.places)}. Press Enter to submit.`);
}

// Where responses are rated, their places follow.
function rate(position, value, advance = false) {
  state.quality[position] = value;
  state.places = placesOfRatings(state.quality);
  state.current = position;
  changed(value === null ? `Response ${letter(position)} not rated` : `Response ${letter(position)} rated ${value} of 7`);
  if (advance && value !== null) advanceFrom(position);
}

function choosePair(better) {
  state.places = better === null ? [1, 1] : better === 0 ? [1, 2] : [2, 1];
  state.current = better ?? state.current;
  changed();
}

async function receive(answer) {
  const item = answer.item;
  if (item) show(item, recall(`triphase draft ${item.assignment}`) ?? item.draft);
  else state.item = null;
  const progress = await refreshProgress();
  if (item) return;
  if (progress?.done === 0) drawNothing("There are no items for you yet. They appear here by themselves once there are any.", "Nothing to rank yet", 0);
  else drawNothing("There is nothing left for you at the moment. Thank you! New items appear here by themselves.");
}

async function refreshProgress() {
  const progress = await attempt("GET", "/api/progress");
  if (progress) drawProgress(progress);
  return progress;
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
    if (error.status === 403) drawNothing(error.message, "No more items");
  } finally {
    busy = false;
    document.body.classList.remove("busy");
  }
}

async function submit() {
  const rest = unranked(state.places);
  if (state.rating && rest.length) {
    tell(`Rate every response from 1 to 7, or skip (S). Not rated: ${rest.map(letter).join(", ")}.`, true);
    say("Rate every response from 1 to 7, or skip.");
    return;
  }
  if (state.places.length - rest.length < 2) {
    tell("Rank at least two responses, or skip (S).", true);
    say("Rank at least two responses, or skip.");
    return;
  }
  if (rest.length && !warned) {
    warned = true;
    const names = rest.map(letter).join(", ");
    const [have, them] = rest.length > 1 ? ["have", "them"] : ["has", "it"];
    tell(`${names} ${have} no place. Press Enter again to submit without ${them}.`);
    say("Some responses have no place. Press Enter again to submit without them.");
    return;
  }
  clearTimeout(saving);
  await during(async () => {
    const { inserting: _, ...given } = content();
    const body = { ...given, places: canonical(state.places), next: true };
    if (state.back !== null) body.corrects = state.item.ranking;
    else Object.assign(body, { assignment: state.item.assignment, receipt: state.item.receipt });
    const key = state.back === null ? draftKey() : null;
    const answer = await call("POST", "/api/answers", body);
    if (key) forget(key);
    tell(answer.status === "late"
      ? "Your time for this item had run out and another labeler has it; your answer is kept separately." : "");
    await receive(answer);
  });
}

async function undo() {
  const back = state.back === null ? 0 : state.back + 1;
  await during(async () => {
    const { answer } = await call("GET", `/api/history?back=${back}`);
    if (!answer) {
      tell(back ? "There is no earlier answer." : "You have not submitted anything yet.");
      return;
    }
    show({ ...answer, assignment: null }, answer, back);
    say("Your earlier answer. Change it and press Enter to save the correction, or Escape to leave it as it was.");
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
  if (state.rating) {
    if (value <= 7) rate(state.current, value, true);
    return;
  }
  if (asking() && !awaitingQuality) {
    if (value <= 2) answerPair(value === 1 ? "left" : "right");
    return;
  }
  if (awaitingQuality && value <= 7) {
    awaitingQuality = false;
    state.quality[state.current] = value;
    changed(`Quality ${value} for response ${letter(state.current)}`);
  } else if (refuseMore()) return;
  else if (state.places.length === 2 && value <= 2) choosePair(value - 1);
  else if (value <= state.places.length) setPlace(state.current, value, true);
}

function arrow(key) {
  if (asking()) {
    if (key === "ArrowLeft" || key === "ArrowRight") answerPair(key === "ArrowLeft" ? "left" : "right");
    return;
  }
  if (state.rating && (key === "ArrowUp" || key === "ArrowDown")) {
    const before = state.quality[state.current] ?? 4;
    rate(state.current, Math.max(1, Math.min(7, before + (key === "ArrowUp" ? 1 : -1))));
    return;
  }
  if (!state.rating && state.places.length === 2 && (key === "ArrowLeft" || key === "ArrowRight")) {
    choosePair(key === "ArrowLeft" ? 0 : 1);
    return;
  }
  if (key === "ArrowLeft" || key === "ArrowRight") {
    focusCard(state.current + (key === "ArrowLeft" ? -1 : 1));
    return;
  }
  state.places = move(state.places, state.current, key === "ArrowUp" ? -1 : 1);
  state.inserting = null;
  state.last = state.current;
  changed();
}

function strengthen(step) {
  if (!askStrength || state.rating) return;
  state.strength = Math.max(1, Math.min(4, (state.strength ?? (step > 0 ? 0 : 2)) + step));
  changed(find(`[data-strength="${state.strength}"]`).textContent);
}

const KEYS = {
  Enter: submit,
  "=": () => {
    if (state.rating) tell("Equal ratings are a tie.");
    else if (state.places.length === 2) choosePair(null);
    else if (asking()) answerPair(null);
    else if (!refuseMore()) {
      const position = state.current;
      state.places = tie(state.places, position, state.last);
      state.inserting = null;
      state.last = position;
      changed();
      advanceFrom(position);
    }
  },
  0: () => { if (state.rating) rate(state.current, null); else if (!asking()) setPlace(state.current, null); },
  Backspace: () => { if (state.rating) rate(state.current, null); else if (asking() || (state.two && state.asked.length)) takeBack(); else setPlace(state.current, null); },
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
  w: () => find("#rationale")?.focus(),
  e: () => rewrite(state.current),
  d: () => reading.toggleDifferences(state.current),
  r: reading.toggleRaw,
  o: () => reading.unfold(state.current),
  t: toggleTwo,
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
  if (event.shiftKey && key === "o") reading.unfoldAll();
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
    if (state.rating) rate(Number(data.position), Number(data.quality));
    else {
      state.quality[Number(data.position)] = Number(data.quality);
      changed();
    }
    focusQuietly(Number(data.position));
  } else if (data.strength) {
    state.strength = state.strength === Number(data.strength) ? null : Number(data.strength);
    changed();
    focusQuietly(state.current);
  } else if (data.flag) flag(data.flag === "prompt" ? null : Number(data.flag));
  else if (data.act === "tie" && asking()) answerPair(null);
  else if (data.act === "tie") { choosePair(null); focusQuietly(state.current); }
  else if (data.better) answerPair(Number(data.better) === asking().left ? "left" : "right");
  else if (data.act) ({
    submit, skip, undo, leave, differences: () => reading.toggleDifferences(state.current), raw: reading.toggleRaw,
    two: toggleTwo, back: takeBack, goal: () => askGoal(refreshProgress), help: () => openHelp("keys-dialog"), guide: toggleGuide,
    note: () => (find("#note").hidden ? writeNote() : showNote(false)), more: () => showMore(),
  })[data.act]();
  else if (data.rewrite) rewrite(Number(data.rewrite));
  else if (data.fold) reading.unfold(Number(data.fold));
  else if (data.card) { state.current = Number(data.card); draw(); }
});

document.addEventListener("focusin", (event) => {
  const card = event.target.closest?.("[data-card]");
  if (card && state.item) { state.current = Number(card.dataset.card); draw(); }
});

find("#prompt").addEventListener("blur", () => find("#prompt").classList.remove("arrived"));
find("#note").addEventListener("input", () => changed(""));
find("#rationale")?.addEventListener("input", () => changed(""));
find("#responses").addEventListener("input", (event) => {
  const { criterion, position, rewriteText } = event.target.dataset;
  if (criterion) state.ratings[criterion][Number(position)] = Number(event.target.value) || null;
  else if (rewriteText) state.rewrites[Number(rewriteText)] = event.target.value;
  else return;
  changed("");
});
makeDraggable(document.body, (position, value) => { if (!state.rating) setPlace(position, value); });
during(async () => {
  await receive(await call("GET", "/api/next"));
  greet();
  if (state.places.some((one) => one !== null)) tell("You are back where you were; your draft is kept.");
});
window.addEventListener("resize", () => { if (state.item) reading.refold(); });
setInterval(() => { if (!state.item && !busy && !document.hidden) leave(); }, 30000);
