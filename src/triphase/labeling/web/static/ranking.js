// The state of a ranking, without the page: places by position, 1 the best, null not ranked, equal is a tie.

export function empty(count) {
  return Array(count).fill(null);
}

export function place(places, position, value) {
  const next = [...places];
  next[position] = value;
  return next;
}

// Ties `position` with the response that was placed last; the best place where nothing was.
export function tie(places, position, last) {
  const value = last !== null && last !== position && places[last] !== null ? places[last] : 1;
  return place(places, position, value);
}

// Groups of tied positions from best to worst.
export function groups(places) {
  const values = [...new Set(places.filter((value) => value !== null))].sort((a, b) => a - b);
  return values.map((value) => places.flatMap((one, position) => (one === value ? [position] : [])));
}

// Places as they are handed in: 1, then the number of better ones and 1 (1, 1, 3), without gaps.
export function canonical(places) {
  const next = empty(places.length);
  let better = 0;
  for (const group of groups(places)) {
    for (const position of group) next[position] = better + 1;
    better += group.length;
  }
  return next;
}

// Moves a response one step up (-1) or down (1): out of its tie first, then past its neighbor.
export function move(places, position, step) {
  if (places[position] === null) {
    const used = new Set(places);
    const free = places.map((_, index) => index + 1).filter((value) => !used.has(value));
    return place(places, position, (step < 0 ? free[0] : free.at(-1)) ?? places.length);
  }
  const order = groups(places);
  const from = order.findIndex((group) => group.includes(position));
  const rest = order.map((group) => group.filter((one) => one !== position));
  if (order[from].length > 1) rest.splice(step < 0 ? from : from + 1, 0, [position]);
  else {
    rest.splice(from, 1);
    rest.splice(Math.max(0, Math.min(rest.length, from + step)), 0, [position]);
  }
  const next = empty(places.length);
  rest.filter((group) => group.length).forEach((group, index) => group.forEach((one) => (next[one] = index + 1)));
  return canonical(next);
}

export function unranked(places) {
  return places.flatMap((value, position) => (value === null ? [position] : []));
}

const ORDINALS = ["", "1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th"];

export function ordinal(value) {
  return ORDINALS[value] ?? "not ranked";
}

export function letter(position) {
  return String.fromCharCode(65 + position);
}

// The ranking in words, for the live region and the submit button.
export function spoken(places) {
  const order = groups(canonical(places)).map((group) => group.map(letter).join(" tied with "));
  const rest = unranked(places);
  const said = order.length ? order.join(", then ") : "Nothing ranked yet";
  return rest.length && order.length ? `${said}; not ranked: ${rest.map(letter).join(", ")}` : said;
}

// The places that ratings give, as the server counts them: the best 1, equal ones tied; null where none is given.
export function placesOfRatings(ratings) {
  return ratings.map((one) => (one === null ? null : 1 + ratings.filter((other) => other !== null && other > one).length));
}
