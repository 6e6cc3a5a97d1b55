// Draws an item. Every text goes in as a text node: nothing that a model wrote can become markup.

import { card } from "./cards.js";
import { element, find } from "./dom.js";
import { written } from "./formatted.js";
import { progressShare, progressText } from "./goal.js";
import { letter, ordinal, spoken, unranked } from "./ranking.js";

const ROLES = { system: "Instructions", user: "Person", assistant: "Assistant" };

function conversation(messages, raw) {
  return messages.map((message) =>
    element("div", { class: `turn ${message.role}` },
      messages.length > 1 ? element("span", { class: "role" }, ROLES[message.role] ?? message.role) : "",
      written(message.content, message.blocks, raw)));
}

const DOES = { ab: "which is better?", policies: "which is better?", rating: "rate each response from 1 to 7" };

// Of which campaign the item is, and what it asks; nothing for the main task.
export function drawTask(task) {
  const box = find("#task");
  box.hidden = task === null;
  box.textContent = task === null ? "" : [task.campaign, DOES[task.kind]].filter(Boolean).join(": ");
  document.body.classList.toggle("rating", task?.kind === "rating");
}

function slots(count) {
  const made = [element("div", { class: "slot none", "data-slot": "none" }, element("span", { class: "slot-name" }, "–", element("span", { class: "long" }, " unranked")))];
  for (let value = 1; value <= count; value += 1) {
    made.push(element("div", { class: "slot", "data-slot": value },
      element("span", { class: "slot-name" }, ordinal(value), value === 1 ? element("span", { class: "long" }, ", best") : "")));
  }
  return made;
}

export function drawItem(item, asks, raw) {
  const count = item.responses.length;
  drawPrompt(item, raw);
  find("#responses").replaceChildren(...item.responses.map((one, position) => card(one, position, count, asks, raw)));
  find("#responses").dataset.count = count;
  find("#slots").replaceChildren(...slots(count));
  document.body.classList.toggle("pair", count === 2);
  find("#work").hidden = false;
  find("#nothing").hidden = true;
}

// Of all responses only the two that are asked about; all of them where nothing is.
export function drawQuestion(asked, number, most) {
  document.body.classList.toggle("two", asked !== null);
  for (const one of document.querySelectorAll("[data-card]")) {
    const position = Number(one.dataset.card);
    one.classList.toggle("apart", asked !== null && position !== asked.left && position !== asked.right);
    const button = one.querySelector("[data-better] kbd");
    if (button && asked) button.textContent = position === asked.left ? "1" : "2";
  }
  find("#question").textContent = asked ? `Question ${number} of at most ${most}` : "";
  find("#take-back").hidden = !asked || number === 1;
}

export function showNote(open) {
  find("#note").hidden = !open;
  find("#note-toggle").setAttribute("aria-expanded", String(open));
}

export function showMore(open = !find("#desk").classList.contains("all")) {
  find("#desk").classList.toggle("all", open);
  find("#more-toggle").setAttribute("aria-expanded", String(open));
}

export function drawPrompt(item, raw) {
  const box = find("#prompt-text");
  box.replaceChildren(...conversation(item.prompt, raw));
  box.classList.toggle("chat", item.prompt.length > 1);
}

export function drawRanking(state) {
  const { places, quality, current, strength } = state;
  const equalPair = places.length === 2 && places[0] !== null && places[0] === places[1];
  for (const one of document.querySelectorAll("[data-card]")) {
    const position = Number(one.dataset.card);
    const value = places[position];
    const tied = value !== null && places.filter((other) => other === value).length > 1;
    const said = value === null ? (document.body.classList.contains("rating") ? "not rated" : "not ranked") : equalPair ? "equal" : `${ordinal(value)}${tied ? ", tied" : ""}`;
    one.classList.toggle("current", position === current);
    one.classList.toggle("placed", value !== null);
    one.classList.toggle("best", value === 1 && !equalPair);
    one.querySelector(".badge").textContent = said;
    one.setAttribute("aria-label", `Response ${letter(position)}, ${said}`);
  }
  for (const one of document.querySelectorAll("[data-place]")) {
    const chosen = places[Number(one.dataset.position)] === Number(one.dataset.place);
    one.setAttribute("aria-pressed", String(chosen && !equalPair));
  }
  find('[data-act="tie"]').setAttribute("aria-pressed", String(equalPair));
  for (const one of document.querySelectorAll("[data-quality]")) {
    one.setAttribute("aria-pressed", String(quality[Number(one.dataset.position)] === Number(one.dataset.quality)));
  }
  for (const one of document.querySelectorAll("[data-criterion]")) {
    one.value = String(state.ratings[one.dataset.criterion][Number(one.dataset.position)] ?? "");
  }
  for (const one of document.querySelectorAll("[data-strength]")) {
    one.setAttribute("aria-pressed", String(strength === Number(one.dataset.strength)));
  }
  for (const slot of document.querySelectorAll("[data-slot]")) {
    for (const chip of slot.querySelectorAll(".chip")) chip.remove();
    const value = slot.dataset.slot === "none" ? null : Number(slot.dataset.slot);
    places.forEach((one, position) => {
      if (one === value) slot.append(element("span", { class: "chip", "data-drag": position, "aria-hidden": "true" }, letter(position)));
    });
  }
  const rest = unranked(places).length;
  find("#submit").classList.toggle("ready", rest === 0);
  find("#order").textContent = spoken(places);
}

export function say(message) {
  find("#live").textContent = message;
}

export function tell(message, bad = false) {
  const box = find("#toast");
  box.textContent = message;
  box.classList.toggle("bad", bad);
  box.hidden = !message;
}

export function drawProgress(progress) {
  find("#progress-text").textContent = progressText(progress);
  const bar = find("#progress-bar");
  const [value, most] = progressShare(progress);
  bar.max = most;
  bar.value = value;
}

// In place of an item. `done` of nothing: somebody who came before there was anything to rank.
export function drawNothing(message, title = "All done", done = 1) {
  const shown = !find("#nothing").hidden;
  find("#work").hidden = true;
  find("#nothing").hidden = false;
  find("#nothing h1").textContent = title;
  find("#nothing-text").textContent = message;
  find("#nothing-undo").hidden = !done;
  if (!shown) find("#nothing h1").focus(); // a later look for items leaves the focus where it is
}
