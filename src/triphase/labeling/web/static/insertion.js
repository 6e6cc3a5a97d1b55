// Ranking by pair questions: each response is put among the ranked ones by halving, so that K responses take the fewest
// questions a binary insertion can take. What has been asked so far is in the places, and in `inserting`: the response
// that is being put in, and the groups between which its place is known to be, [position, low, high].

import { canonical, empty, groups, unranked } from "./ranking.js";

// The responses to ask about next, by position, with the state behind the question; null where all are ranked.
export function question(places, inserting) {
  const order = groups(canonical(places));
  const rest = unranked(places);
  if (!order.length) order.push([rest.shift()]);
  if (!rest.length) return null;
  const goesOn = inserting && rest.includes(inserting[0]) && inserting[1] < inserting[2] && inserting[2] <= order.length;
  const [position, low, high] = goesOn ? inserting : [rest[0], 0, order.length];
  const middle = Math.floor((low + high) / 2);
  const other = order[middle][0];
  return { position, other, low, high, middle, order, left: Math.min(position, other), right: Math.max(position, other) };
}

// What is known after the answer: which of the two is better, by position, or null where they are equal.
export function answered(places, inserting, better) {
  const { position, low, high, middle, order } = question(places, inserting);
  if (better === null) {
    order[middle].push(position);
    return { places: placesOf(order, places.length), inserting: null };
  }
  const next = better === position ? [position, low, middle] : [position, middle + 1, high];
  if (next[1] < next[2]) return { places, inserting: next };
  order.splice(next[1], 0, [position]);
  return { places: placesOf(order, places.length), inserting: null };
}

// The most questions that are left, this one included.
export function mostQuestions(places, inserting) {
  const asked = question(places, inserting);
  if (!asked) return 0;
  let left = halvings(asked.high - asked.low);
  const rest = unranked(places).length - 1 - (places.every((one) => one === null) ? 1 : 0);
  for (let more = 1; more <= rest; more += 1) left += halvings(asked.order.length + more);
  return left;
}

const halvings = (size) => Math.ceil(Math.log2(size + 1));

function placesOf(order, count) {
  const next = empty(count);
  order.forEach((group, index) => group.forEach((position) => (next[position] = index + 1)));
  return canonical(next);
}
