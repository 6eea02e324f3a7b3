// SPDX-License-Identifier: Apache-2.0
// Keeps a page up to date and makes it quicker to use. Without it everything can be read and done, too.
"use strict";
(() => {
  const body = document.body;
  const link = document.getElementById("link");
  const said = document.getElementById("said");
  const dialog = document.getElementById("dialog");
  const clusters = document.getElementById("clusters");
  const filter = document.getElementById("filter");
  const REFRESH_MS = 400; // between two looks at the pieces of a page, however much changes
  const PROGRESS_MS = 500;
  const AGAIN_MS = 3000;
  const SAY_MS = 700;
  const AGES_MS = 15000; // how long something has waited changes without anybody saying so
  let cursor = body.dataset.cursor;

  // --- the pieces of a page that are fetched anew ---------------------------------------------------------

  let refreshing = false;
  let again = false;
  let lastRefresh = 0;

  async function fetchPiece(path) {
    const url = new URL(path, location.href);
    url.searchParams.set("part", "live");
    const answer = await fetch(url, { credentials: "same-origin", headers: { Accept: "text/html" } });
    if (answer.redirected && new URL(answer.url).pathname === "/login") location.assign("/login");
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  function putInPlace(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const adopted = document.adoptNode(fresh);
    old.replaceWith(adopted);
    if (focused) focusAgain(focused);
  }

  // What took the place of a link that is no more: the one of the same name, or to the same place.
  function focusAgain(gone) {
    const href = gone.getAttribute("href");
    const found = (gone.id && document.getElementById(gone.id))
      || (href && [...document.querySelectorAll("main a[href]")].find((a) => a.getAttribute("href") === href));
    if (found) found.focus({ preventScroll: true });
  }

  async function refresh() {
    const pieces = [...document.querySelectorAll("main [data-live]")];
    if (!pieces.length) return;
    if (refreshing) { again = true; return; }
    refreshing = true;
    const rest = lastRefresh + REFRESH_MS - performance.now();
    if (rest > 0) await new Promise((done) => setTimeout(done, rest));
    lastRefresh = performance.now();
    again = false;
    try {
      const fresh = await fetchPiece(location.pathname + location.search);
      for (const piece of pieces) {
        const found = fresh.getElementById(piece.id);
        if (found) putInPlace(piece, found);
      }
    } catch { /* the stream tells that the service is away */ }
    refreshing = false;
    if (again) refresh();
  }

  // --- the grid -------------------------------------------------------------------------------------------

  const news = new Map(); // what is to be said to who cannot see it, of several changes at once
  let saying = 0;

  function announce(change) {
    news.set(change.name, change.state);
    if (saying) return;
    saying = setTimeout(() => {
      said.textContent = news.size > 3
        ? `${news.size} hosts changed`
        : [...news].map(([name, state]) => `${name} is ${state}`).join(", ");
      news.clear();
      saying = 0;
    }, SAY_MS);
  }

  function fill(cell, change) {
    cell.className = `cell ${change.group}`;
    cell.title = `${change.name}: ${change.state}, ${change.reason}`;
    cell.setAttribute("aria-label", `${change.name}, ${change.state}`);
    if (clusters.classList.contains("roomy")) {
      const parts = [["b", change.letter], ["span", change.name], ["i", change.state]].map(([kind, text]) => {
        const part = document.createElement(kind);
        part.textContent = text;
        return part;
      });
      cell.replaceChildren(...parts);
    } else {
      cell.textContent = change.letter;
    }
    void cell.offsetWidth;
    cell.classList.add("changed");
  }

  function makeCell(change) {
    const section = document.getElementById(`c/${change.vcenter}/${change.cluster}`);
    if (!section) return null;
    const cell = document.createElement("a");
    cell.id = `h/${change.vcenter}/${change.host}`;
    cell.href = `/hosts/${encodeURIComponent(change.vcenter)}/${encodeURIComponent(change.host)}`;
    const item = document.createElement("li");
    item.append(cell);
    const cells = [...section.querySelectorAll(".grid > li")];
    const nameOf = (li) => li.firstElementChild.getAttribute("aria-label").split(", ")[0];
    const next = cells.find((li) => nameOf(li).localeCompare(change.name, "en", { numeric: true }) > 0);
    section.querySelector(".grid").insertBefore(item, next || null);
    cell.tabIndex = section.querySelector('.grid a[tabindex="0"]') ? -1 : 0;
    return cell;
  }

  function tally(section) {
    const shown = section.querySelector(".tally");
    const found = new Map();
    for (const cell of section.querySelectorAll(".grid a")) {
      const state = cell.getAttribute("aria-label").split(", ").pop();
      const known = found.get(state) || { count: 0, letter: (cell.querySelector("b") || cell).textContent, group: cell.classList[1] };
      known.count += 1;
      found.set(state, known);
    }
    const order = [...filter.elements.state.options].map((each) => each.value);
    const sorted = [...found].sort(([left], [right]) => order.indexOf(left) - order.indexOf(right));
    shown.replaceChildren(...sorted.map(([state, { count, letter, group }]) => {
      const piece = document.createElement("span");
      const short = document.createElement("abbr");
      piece.className = group;
      piece.title = `${count} ${state}`;
      short.title = state;
      short.textContent = letter;
      piece.append(String(count), short);
      return piece;
    }));
  }

  function change(one, touched) {
    let cell = document.getElementById(`h/${one.vcenter}/${one.host}`);
    const section = cell && cell.closest(".cluster");
    const moved = section && section.id !== `c/${one.vcenter}/${one.cluster}`;
    if (cell && (one.state === "REMOVED" || moved)) {
      touched.add(section);
      cell.parentElement.remove();
      cell = null;
    }
    if (one.state === "REMOVED") return true;
    if (!cell) cell = makeCell(one);
    if (!cell) return false;
    fill(cell, one);
    touched.add(cell.closest(".cluster"));
    return true;
  }

  function takeChanges(list) {
    let known = true;
    if (clusters) {
      const touched = new Set();
      for (const one of list) known = change(one, touched) && known;
      for (const section of touched) {
        if (section.querySelector(".grid a")) tally(section);
        else section.remove();
      }
      applyFilter();
      if (!known && !filtered()) reload(); // a cluster that the page does not have yet
    }
    for (const one of list) if (one.group === "bad" || one.group === "lost") announce(one);
    refresh();
  }

  let reloading = false;
  function reload() {
    if (reloading || dialog.open) return;
    reloading = true;
    setTimeout(() => location.reload(), 300 + Math.random() * 700);
  }

  // --- choosing among hosts -------------------------------------------------------------------------------

  function filtered() {
    const asked = new URLSearchParams(location.search);
    return Boolean(asked.get("state") || asked.get("text"));
  }

  function applyFilter() {
    if (!filter) return;
    const state = filter.elements.state.value;
    const text = filter.elements.text.value.trim().toLowerCase();
    let shown = 0;
    for (const section of clusters.querySelectorAll(".cluster")) {
      const cluster = section.getAttribute("aria-label").toLowerCase();
      let some = false;
      for (const item of section.querySelectorAll(".grid > li")) {
        const cell = item.firstElementChild;
        const fits = (!state || cell.getAttribute("aria-label").endsWith(`, ${state}`)) &&
          (!text || cluster.includes(text) || cell.title.toLowerCase().includes(text));
        if (item.hidden === fits) item.hidden = !fits;
        if (fits) { some = true; shown += 1; }
      }
      if (section.hidden === some) section.hidden = !some;
      rove(section);
    }
    document.getElementById("hosts-shown").textContent = String(shown);
  }

  if (filter) {
    const onServer = filtered(); // the page has only those: asking for others needs the server
    let timer = 0;
    const ask = () => {
      if (onServer) { filter.requestSubmit(); return; }
      clearTimeout(timer);
      timer = setTimeout(applyFilter, 80);
    };
    filter.elements.state.addEventListener("change", ask);
    filter.elements.text.addEventListener("input", () => { if (!onServer) ask(); });
    filter.addEventListener("submit", (event) => {
      if (onServer) return;
      event.preventDefault();
      applyFilter();
    });
    if (!onServer) filter.querySelector("button").hidden = true;
    document.addEventListener("click", (event) => {
      const chosen = event.target.closest("a[data-state]");
      if (!chosen || onServer || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      filter.elements.state.value = chosen.dataset.state;
      applyFilter();
      document.getElementById("hosts-title").scrollIntoView({ block: "start" });
    });
  }

  // --- keys: one stop of the tabulator per cluster, arrows within it --------------------------------------

  function visible(section) {
    return [...section.querySelectorAll(".grid > li:not([hidden]) > a")];
  }

  function rove(section) {
    const cells = visible(section);
    let stops = 0;
    for (const cell of cells) {
      if (cell.tabIndex === 0 && stops === 0 && cell.hasAttribute("tabindex")) stops += 1;
      else if (cell.getAttribute("tabindex") !== "-1") cell.tabIndex = -1;
    }
    if (!stops && cells.length) cells[0].tabIndex = 0;
  }

  function move(cells, from, key) {
    const at = cells.indexOf(from);
    if (key === "Home") return cells[0];
    if (key === "End") return cells[cells.length - 1];
    if (key === "ArrowRight") return cells[at + 1];
    if (key === "ArrowLeft") return cells[at - 1];
    const here = from.getBoundingClientRect();
    const down = key === "ArrowDown";
    const others = down ? cells.slice(at + 1) : cells.slice(0, at).reverse();
    const row = others.find((cell) => Math.abs(cell.getBoundingClientRect().top - here.top) > 4);
    if (!row) return undefined;
    const top = row.getBoundingClientRect().top;
    return others
      .filter((cell) => Math.abs(cell.getBoundingClientRect().top - top) < 4)
      .reduce((best, cell) =>
        Math.abs(cell.getBoundingClientRect().left - here.left) < Math.abs(best.getBoundingClientRect().left - here.left) ? cell : best);
  }

  if (clusters) {
    document.getElementById("keys").hidden = false;
    applyFilter();
    clusters.addEventListener("keydown", (event) => {
      if (!["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
      const cell = event.target.closest("a.cell");
      if (!cell) return;
      event.preventDefault();
      const target = move(visible(cell.closest(".cluster")), cell, event.key);
      if (!target) return;
      cell.tabIndex = -1;
      target.tabIndex = 0;
      target.focus();
    });
  }

  // --- consent in a dialogue ------------------------------------------------------------------------------

  let following = 0;
  let openedBy = null;

  function show(fresh) {
    const card = fresh.querySelector(".card");
    if (!card) { location.reload(); return; }
    const adopted = document.adoptNode(card);
    adopted.removeAttribute("data-live"); // the page's own pieces are looked for in <main>
    dialog.replaceChildren(adopted);
    if (!dialog.open) dialog.showModal();
    const first = dialog.querySelector("[autofocus]") || dialog.querySelector("h1");
    if (first.tagName === "H1") first.tabIndex = -1;
    first.focus();
    clearTimeout(following);
    if (adopted.dataset.operation && !("ended" in adopted.dataset)) follow(adopted.dataset.operation);
  }

  function follow(number) {
    following = setTimeout(async () => {
      if (!dialog.open) return;
      try {
        const fresh = await fetchPiece(`/operations/${number}`);
        const old = dialog.querySelector("[data-operation]");
        const found = fresh.querySelector("[data-operation]");
        if (!old || !found) return;
        found.removeAttribute("data-live");
        if (!old.isEqualNode(found)) putInPlace(old, found);
        if ("ended" in found.dataset) { refresh(); return; }
      } catch { /* asked again */ }
      follow(number);
    }, PROGRESS_MS);
  }

  document.addEventListener("click", async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    const close = event.target.closest("dialog [data-close]");
    if (close) { event.preventDefault(); dialog.close(); return; }
    const opener = event.target.closest("a[data-dialog]");
    if (!opener) return;
    event.preventDefault();
    if (!dialog.open) openedBy = opener;
    try { show(await fetchPiece(opener.href)); } catch { location.assign(opener.href); }
  });

  // The browser gives the focus back to the opener, unless a newer piece of the page has taken its place meanwhile.
  dialog.addEventListener("close", () => { if (openedBy && !openedBy.isConnected) focusAgain(openedBy); });

  dialog.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    for (const button of form.querySelectorAll("button")) button.disabled = true;
    try {
      const action = new URL(form.action);
      action.searchParams.set("part", "live");
      const answer = await fetch(action, { method: "POST", body: new URLSearchParams(new FormData(form)), credentials: "same-origin" });
      if (form.dataset.then === "close" && answer.ok && answer.redirected) {
        dialog.close();
        said.textContent = form.dataset.said;
        refresh();
        return;
      }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (fresh.querySelector(".card")) show(fresh);
      else location.assign("/login"); // the session ended
    } catch {
      for (const button of form.querySelectorAll("button")) button.disabled = false;
    }
  });

  // a page of an operation, reached without the dialogue
  const alone = document.querySelector("main [data-operation]");
  if (alone && !("ended" in alone.dataset)) {
    const timer = setInterval(() => {
      const now = document.querySelector("main [data-operation]");
      if (!now || "ended" in now.dataset) { clearInterval(timer); return; }
      refresh();
    }, PROGRESS_MS);
  }

  // --- the stream -----------------------------------------------------------------------------------------

  function say(state, text) {
    if (link.dataset.state === state) return;
    link.dataset.state = state;
    link.className = `link ${state}`;
    link.lastElementChild.textContent = text;
  }

  let source = null;
  function listen() {
    source = new EventSource(`/api/v1/stream?since=${encodeURIComponent(cursor)}`);
    source.addEventListener("open", () => say("live", "Live"));
    source.addEventListener("change", (event) => {
      cursor = event.lastEventId;
      takeChanges(JSON.parse(event.data));
    });
    source.addEventListener("summary", (event) => { cursor = event.lastEventId; refresh(); });
    source.addEventListener("reset", (event) => {
      cursor = event.lastEventId;
      if (clusters) reload(); else refresh();
    });
    source.addEventListener("error", () => {
      say("away", "Not connected; trying again");
      if (source.readyState !== EventSource.CLOSED) return;
      refresh(); // refused: the session ended, and this leads to the login; or too many listen, and this is as good
      setTimeout(listen, AGAIN_MS);
    });
  }
  if (link) listen();
  setInterval(() => { if (!document.hidden && link.dataset.state === "live") refresh(); }, AGES_MS);
  addEventListener("pagehide", () => { if (source) source.close(); });
  addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
})();
