// Draws an item. Every text goes in as textContent: nothing that a model wrote can become markup.

import { letter, ordinal, spoken, unranked } from "./ranking.js";

const find = (selector) => document.querySelector(selector);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function conversation(messages) {
  const names = { system: "Instructions", user: "Person", assistant: "Assistant" };
  return messages.map((message) =>
    element("div", { class: `turn ${message.role}` },
      messages.length > 1 ? element("span", { class: "role" }, names[message.role] ?? message.role) : "",
      element("bdi", { class: "text", dir: "auto" }, message.content)));
}

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

function card(response, position, count, askQuality) {
  const text = element("bdi", { class: "text", dir: "auto" }, response.text);
  const body = element("div", { class: "body" }, text);
  if (!response.text.trim()) body.replaceChildren(element("span", { class: "hint" }, "(empty response)"));
  if (!response.finished) body.append(element("span", { class: "cut" }, " … cut at the length limit"));
  const foot = element("footer", {}, placeButtons(position, count));
  if (askQuality) foot.append(qualityButtons(position));
  return element("article", { class: "card", tabindex: "0", "data-card": position, "aria-label": `Response ${letter(position)}` },
    element("header", {},
      element("span", { class: "handle", "data-drag": position, "aria-hidden": "true", title: "Drag to a place" }, letter(position)),
      element("span", { class: "badge" }, "not ranked"),
      element("button", { type: "button", class: "quiet flag", "data-flag": position, tabindex: "-1", "aria-label": `Flag response ${letter(position)}` }, "Flag")),
    body, foot);
}

function slots(count) {
  const made = [element("div", { class: "slot none", "data-slot": "none" }, element("span", { class: "slot-name" }, "unranked"))];
  for (let value = 1; value <= count; value += 1) {
    made.push(element("div", { class: "slot", "data-slot": value },
      element("span", { class: "slot-name" }, value === 1 ? "1st, best" : ordinal(value))));
  }
  return made;
}

export function drawItem(item, askQuality) {
  const count = item.responses.length;
  find("#prompt-text").replaceChildren(...conversation(item.prompt));
  find("#responses").replaceChildren(...item.responses.map((one, position) => card(one, position, count, askQuality)));
  find("#responses").dataset.count = count;
  find("#slots").replaceChildren(...slots(count));
  document.body.classList.toggle("pair", count === 2);
  find("#work").hidden = false;
  find("#nothing").hidden = true;
}

export function drawRanking(state) {
  const { places, quality, current, strength } = state;
  const equalPair = places.length === 2 && places[0] !== null && places[0] === places[1];
  for (const one of document.querySelectorAll("[data-card]")) {
    const position = Number(one.dataset.card);
    const value = places[position];
    const tied = value !== null && places.filter((other) => other === value).length > 1;
    const said = value === null ? "not ranked" : equalPair ? "equal" : `${ordinal(value)}${tied ? ", tied" : ""}`;
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
  const parts = [`${progress.today} today`, `${progress.done} in all`];
  if (progress.median_seconds !== null) parts.push(`${Math.round(progress.median_seconds)} s each`);
  parts.push(progress.left ? `${progress.left} waiting` : "none waiting");
  find("#progress-text").textContent = parts.join(" · ");
  const bar = find("#progress-bar");
  bar.max = Math.max(progress.done + progress.left, 1);
  bar.value = progress.done;
}

export function drawNothing(message) {
  find("#work").hidden = true;
  find("#nothing").hidden = false;
  find("#nothing-text").textContent = message;
  find("#nothing h1").focus();
}
