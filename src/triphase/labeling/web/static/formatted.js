// The text of a model as it was written, or formatted: a tree of nodes that the server made from its Markdown.
// A node is a text or [name, class, children, attributes]. Only names and attributes listed here become elements, so
// that neither the text nor a fault of the server can bring in a script, an image, a style or a link.

const HTML = new Set([
  "p", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "s", "br", "hr", "span",
  "table", "thead", "tbody", "tr", "th", "td", "div",
]);
const MATH = new Set([
  "math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "msup", "msub", "msubsup", "mfrac", "msqrt", "mroot",
  "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mpadded", "mstyle", "menclose", "mmultiscripts",
  "mprescripts", "none",
]);
const ATTRIBUTES = new Set([
  "start", "dir", "tabindex", "role", "aria-label", "display", "stretchy", "fence", "mathvariant", "linethickness", "accent",
  "accentunder", "columnalign", "displaystyle", "scriptlevel", "separator", "form", "minsize", "maxsize", "movablelimits",
]);

export function build(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const [name, kind, children, attributes] = node;
  const made = HTML.has(name) ? document.createElement(name)
    : MATH.has(name) ? document.createElementNS("http://www.w3.org/1998/Math/MathML", name)
      : document.createElement("span");
  if (kind) made.setAttribute("class", kind);
  for (const [key, value] of Object.entries(attributes ?? {})) if (ATTRIBUTES.has(key)) made.setAttribute(key, value);
  made.append(...children.map(build));
  return made;
}

export function written(text, blocks, raw) {
  const formatted = Boolean(blocks) && !raw;
  const box = document.createElement(formatted ? "div" : "bdi");
  box.className = formatted ? "text formatted" : "text";
  box.dir = "auto";
  if (formatted) box.append(...blocks.map(build));
  else box.textContent = text;
  return box;
}
