// Which words of one text are not in another: the longest common subsequence of their words, and marks for the rest.

const MOST_WORDS = 4000;
const segmenter = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;

// [{ text, node, from }] of the words of an element, in reading order; formulas are no words.
export function wordsOf(root) {
  const found = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.parentElement.closest("math")) continue;
    for (const [text, from] of split(node.data)) found.push({ text, node, from });
  }
  return found;
}

function split(text) {
  if (!segmenter) return [...text.matchAll(/\S+/gu)].map((match) => [match[0], match.index]);
  return [...segmenter.segment(text)].filter((one) => one.segment.trim()).map((one) => [one.segment, one.index]);
}

// For each word of `these` whether it stays when only what is common to both is kept; null where that is too long to tell.
export function common(these, others) {
  const kept = Array(these.length).fill(false);
  let start = 0;
  while (start < these.length && start < others.length && these[start] === others[start]) kept[start++] = true;
  let end = these.length;
  let otherEnd = others.length;
  while (end > start && otherEnd > start && these[end - 1] === others[otherEnd - 1]) {
    kept[--end] = true;
    otherEnd -= 1;
  }
  const rows = end - start;
  const columns = otherEnd - start;
  if (rows > MOST_WORDS || columns > MOST_WORDS) return null;
  // length[i][j]: longest common subsequence of these[start + i ...] and others[start + j ...]
  const length = Array.from({ length: rows + 1 }, () => new Uint16Array(columns + 1));
  for (let i = rows - 1; i >= 0; i -= 1) {
    for (let j = columns - 1; j >= 0; j -= 1) {
      length[i][j] = these[start + i] === others[start + j]
        ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  for (let i = 0, j = 0; i < rows && j < columns;) {
    if (these[start + i] === others[start + j]) {
      kept[start + i] = true;
      i += 1;
      j += 1;
    } else if (length[i + 1][j] >= length[i][j + 1]) i += 1;
    else j += 1;
  }
  return kept;
}

// Marks the words of `root` that are not in `others` (words); how many, or null where the texts are too long.
export function markDifferences(root, others) {
  const words = wordsOf(root);
  const kept = common(words.map((one) => one.text), others);
  if (kept === null) return null;
  const marked = words.filter((_, index) => !kept[index]);
  // From the end, so that what is split off does not move the offsets before it.
  for (const { text, node, from } of [...marked].reverse()) {
    const rest = node.splitText(from);
    rest.splitText(text.length);
    const mark = document.createElement("mark");
    rest.replaceWith(mark);
    mark.append(rest);
  }
  return marked.length;
}
