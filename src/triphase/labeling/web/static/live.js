// What stands in [data-live] is fetched anew every ten seconds while the page is seen; open details stay open.
const PAUSE = 10_000;
async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { redirect: "error" });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-live]");
    const here = document.querySelector("[data-live]");
    const opened = [...here.querySelectorAll("details")].map((each) => each.open);
    if (!fresh || fresh.innerHTML === here.innerHTML || here.contains(document.activeElement)) return;
    [...fresh.querySelectorAll("details")].forEach((each, place) => { each.open = opened[place] ?? false; });
    here.replaceWith(document.adoptNode(fresh));
  } catch { /* the next look will tell */ }
}
setInterval(refresh, PAUSE);
document.addEventListener("visibilitychange", refresh);
