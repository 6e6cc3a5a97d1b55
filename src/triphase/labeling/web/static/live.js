// What stands in [data-live] is fetched anew every ten seconds while the page is seen. Open details and the place to
// which a table was scrolled stay; while somebody is at something in it, it is left alone.
const PAUSE = 10_000;

// The keyboard, the pointer over a form, text that is typed or marked, and an opened form: rows must not move under them.
function busy(here) {
  const marked = getSelection();
  return here.contains(document.activeElement) || here.querySelector("form:hover, details[open] form") !== null
    || (!marked.isCollapsed && here.contains(marked.anchorNode))
    || [...here.querySelectorAll("input, textarea")].some((field) => field.value !== field.defaultValue);
}

const boxes = (part) => [part, ...part.querySelectorAll(".scroll, .wide")];

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { redirect: "error" });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-live]");
    const here = document.querySelector("[data-live]");
    if (!fresh || fresh.innerHTML === here.innerHTML || busy(here)) return;
    const opened = [...here.querySelectorAll("details")].map((each) => each.open);
    const scrolled = boxes(here).map((each) => each.scrollLeft);
    [...fresh.querySelectorAll("details")].forEach((each, place) => { each.open = opened[place] ?? false; });
    here.replaceWith(document.adoptNode(fresh));
    boxes(fresh).forEach((each, place) => { each.scrollLeft = scrolled[place] ?? 0; });
  } catch { /* the next look will tell */ }
}
setInterval(refresh, PAUSE);
document.addEventListener("visibilitychange", refresh);
