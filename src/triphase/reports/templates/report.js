"use strict";
// All that this page runs: where one is in the contents, search and order of the samples, and a page that is served
// keeps itself fresh. Without it everything is there and can be read. Texts are moved and matched, never made into markup.
(() => {
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const state = { query: "", sort: "", of: null, most: null };

  function mark() {
    const links = all(".contents a");
    const passed = links.filter((link) => one(link.getAttribute("href"))?.getBoundingClientRect().top < 140);
    const ended = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
    const here = (ended ? links : passed).at(-1) ?? links[0];
    for (const link of links) {
      if (link === here && !link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        const bar = link.closest("nav");
        if (!bar.matches(":hover")) bar.scrollLeft = link.offsetLeft - bar.clientWidth / 2;  // nothing moves under a finger
      } else if (link !== here) link.removeAttribute("aria-current");
    }
  }

  function samples() {
    const list = one("#sample-list");
    if (!list) return;
    const articles = [...list.querySelectorAll(".sample")].map((node, place) => ({
      node, place,
      keys: JSON.parse(node.dataset.keys),
      text: [...node.querySelectorAll(".text")].map((each) => each.textContent).join("\n").toLowerCase(),
    }));
    const step = Number(list.dataset.shown);
    state.most ??= step;
    state.of ??= one("#of").value;
    const [search, sort, of] = [one("#search"), one("#sort"), one("#of")];
    [search.value, sort.value, of.value] = [state.query, state.sort, state.of];

    function show() {
      const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
      const found = articles.filter((each) => words.every((word) => each.text.includes(word)));
      if (state.sort) {
        const [place, sign] = [Number(state.sort[0]), state.sort[1] === "-" ? -1 : 1];
        const key = (each) => each.keys[state.of]?.[place] ?? null;
        found.sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place;
          return sign * (x - y) || a.place - b.place;
        });
      }
      list.replaceChildren(...found.slice(0, state.most).map((each) => each.node));
      const rest = Math.max(0, found.length - state.most);
      one("#show-more").hidden = rest === 0;
      one("#show-more").textContent = `Show ${Math.min(rest, 4 * step)} more of ${rest}`;
      one("#shown").textContent = `${found.length} of ${articles.length} prompts${words.length ? ` with “${words.join(" ")}”` : ""}`;
      light(words);
    }

    function light(words) {
      if (!window.Highlight) return;
      const ranges = [];
      for (const text of words.length ? list.querySelectorAll(".text") : []) {
        const node = text.firstChild;
        if (!node) continue;
        const lower = node.data.toLowerCase();
        if (lower.length !== node.data.length) continue;
        for (const word of words)
          for (let at = lower.indexOf(word); at >= 0; at = lower.indexOf(word, at + word.length)) {
            const range = new Range();
            range.setStart(node, at);
            range.setEnd(node, at + word.length);
            ranges.push(range);
          }
      }
      CSS.highlights.set("found", new Highlight(...ranges));
    }

    search.addEventListener("input", () => { state.query = search.value; state.most = step; show(); });
    sort.addEventListener("change", () => { state.sort = sort.value; state.most = step; show(); });
    of.addEventListener("change", () => { state.of = of.value; show(); });
    one("#show-more").addEventListener("click", () => { state.most += 4 * step; show(); });
    one("#controls").hidden = false;
    show();
    state.show = show;
  }

  function begin() {
    samples();
    mark();
  }

  const named = (node) => node.querySelector("summary").textContent;

  async function refresh() {
    const fresh = new DOMParser().parseFromString(await (await fetch("/")).text(), "text/html");
    const open = new Set(all("details[open]").map(named));
    const typing = document.activeElement?.id;
    for (const selector of ["main", "nav.contents"]) one(selector).replaceWith(fresh.querySelector(selector));
    for (const node of all("details")) if (open.has(named(node))) node.open = true;
    begin();
    if (typing) document.getElementById(typing)?.focus({ preventScroll: true });
    return fresh.body.dataset.live;
  }

  async function follow() {
    let version = document.body.dataset.live;
    for (;;) {
      await new Promise((done) => setTimeout(done, 3000));
      try {
        const now = await (await fetch("/state")).json();
        if (now.version !== version) version = await refresh();
        one("#live").textContent = now.says;
      } catch {
        one("#live").textContent = "The server does not answer; this page stays as it is.";
      }
    }
  }

  // Paper has no buttons: all the prompts that were found are printed, not only those shown so far.
  let most = null;
  addEventListener("beforeprint", () => { most = state.most; state.most = Infinity; state.show?.(); });
  addEventListener("afterprint", () => { state.most = most; state.show?.(); });

  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mark(); });
  }, { passive: true });
  begin();
  if (document.body.dataset.live) follow();
})();
