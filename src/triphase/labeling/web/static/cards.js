// A response as a card: its text, folded where it is long, and the buttons below it.

import { markDifferences, wordsOf } from "./differences.js";
import { element, find } from "./dom.js";
import { written } from "./formatted.js";
import { letter, ordinal } from "./ranking.js";

const cards = () => [...document.querySelectorAll("[data-card]")];

function placeButtons(position, count) {
  if (count === 2) return pairButton(position);
  const box = element("div", { class: "places", role: "group", "aria-label": `Place of response ${letter(position)}` });
  for (let value = 1; value <= count; value += 1) {
    box.append(element("button", {
      type: "button", "data-position": position, "data-place": value, "aria-pressed": "false",
      "aria-label": `Response ${letter(position)} ${ordinal(value)}`, tabindex: "-1",
    }, String(value)));
  }
  return box;
}

// Of two, one button says which is better; its key is the number of the response.
function pairButton(position) {
  const button = element("button", {
    type: "button", "data-position": position, "data-place": 1, "aria-pressed": "false", tabindex: "-1",
    "aria-label": `Response ${letter(position)} is better`,
  }, element("kbd", {}, String(position + 1)), " This one is better");
  return element("div", { class: "places" }, button);
}

// The same where two of many are shown at a time.
function betterButton(position) {
  return element("button", {
    type: "button", class: "better", "data-better": position, tabindex: "-1", "aria-label": `Response ${letter(position)} is better`,
  }, element("kbd", {}, "1"), " This one is better");
}

function qualityButtons(position) {
  const box = element("div", { class: "quality", role: "group", "aria-label": `Quality of response ${letter(position)}` },
    element("span", { class: "hint" }, "Quality"));
  for (let value = 1; value <= 7; value += 1) {
    box.append(element("button", {
      type: "button", "data-position": position, "data-quality": value, "aria-pressed": "false", tabindex: "-1",
      "aria-label": `Quality ${value} of 7 for response ${letter(position)}`,
    }, String(value)));
  }
  return box;
}

// A list from 1 to 7 for each criterion.
function criterionLists(position, criteria) {
  return criteria.map((name, index) => {
    const list = element("select", { "data-criterion": index, "data-position": position, "aria-label": `${name}, response ${letter(position)}` },
      element("option", { value: "" }, "–"));
    for (let value = 1; value <= 7; value += 1) list.append(element("option", { value }, String(value)));
    return element("label", { class: "criterion" }, `${name} `, list);
  });
}

function rewriting(position) {
  return element("div", { class: "rewriting", hidden: "" },
    element("textarea", { "data-rewrite-text": position, rows: 6, "aria-label": `Response ${letter(position)} as it should be` }));
}

export function card(response, position, count, { askQuality, askRewrite, criteria }, raw) {
  const body = element("div", { class: "body" });
  fill(body, response, raw);
  const foot = element("footer", {}, placeButtons(position, count));
  if (count > 2) foot.append(betterButton(position));
  if (askQuality) foot.append(qualityButtons(position));
  foot.append(...criterionLists(position, criteria));
  const edit = askRewrite
    ? [element("button", { type: "button", class: "quiet flag", "data-rewrite": position, tabindex: "-1", "aria-expanded": "false", "aria-label": `Rewrite response ${letter(position)}` }, "Rewrite")] : [];
  return element("article", { class: "card", tabindex: "0", "data-card": position, "aria-label": `Response ${letter(position)}` },
    element("header", {},
      element("span", { class: "handle", "data-drag": position, "aria-hidden": "true", title: "Drag to a place" }, letter(position)),
      element("span", { class: "badge" }, "not ranked"), ...edit,
      element("button", { type: "button", class: "quiet flag", "data-flag": position, tabindex: "-1", "aria-label": `Flag response ${letter(position)}` }, "Flag")),
    body,
    element("button", { type: "button", class: "quiet fold", "data-fold": position, "aria-expanded": "true", hidden: "" }),
    ...(askRewrite ? [rewriting(position)] : []), foot);
}

// Opens or closes the field in which a response is written as it should be.
export function showRewriting(position, open) {
  const one = find(`[data-card="${position}"]`);
  one.querySelector(".rewriting").hidden = !open;
  one.querySelector("[data-rewrite]").setAttribute("aria-expanded", String(open));
  if (open) one.querySelector("textarea").focus();
}

function fill(body, response, raw) {
  if (response.text.trim()) body.replaceChildren(written(response.text, response.blocks, raw));
  else body.replaceChildren(element("span", { class: "hint" }, "(empty response)"));
  if (!response.finished) body.append(element("span", { class: "cut" }, " … cut at the length limit"));
}

// Writes the responses anew: as written or formatted, and with what differs from response `base` marked.
// Of two, each is marked against the other. False where the texts are too long to compare.
export function drawTexts(responses, { raw, base, shown }) {
  const bodies = cards().map((one) => one.querySelector(".body"));
  bodies.forEach((body, position) => fill(body, responses[position], raw));
  if (base === null) return true;
  const texts = bodies.map((body) => body.querySelector(".text"));
  const words = texts.map((text) => (text ? wordsOf(text).map((one) => one.text) : []));
  return shown.every((position) => {
    const other = position === base ? (shown.length === 2 ? shown.find((one) => one !== base) : null) : base;
    return other === null || !texts[position] || markDifferences(texts[position], words[other]) !== null;
  });
}

// Folds what is longer than a card should be, unless it was unfolded; says how much is hidden.
export function fold(open) {
  const most = 21 * parseFloat(getComputedStyle(document.documentElement).fontSize);
  for (const one of cards()) {
    const body = one.querySelector(".body");
    const position = Number(one.dataset.card);
    const isLong = (body.querySelector(".text")?.offsetHeight ?? 0) > 1.15 * most;
    const isOpen = !isLong || open.has(position);
    one.classList.toggle("folded", !isOpen);
    const button = one.querySelector("[data-fold]");
    button.hidden = !isLong;
    button.setAttribute("aria-expanded", String(isOpen));
    button.setAttribute("aria-label", `${isOpen ? "Fold" : "Show all of"} response ${letter(position)}`);
    button.textContent = isOpen ? "Fold (O)" : `Show all ${words(body)} words (O)`;
  }
}

const words = (body) => (body.textContent.match(/\S+/gu) ?? []).length;

export function reveal(position) {
  find(`[data-card="${position}"]`)?.scrollIntoView({ block: "nearest", behavior: "auto" });
}
