// The pages work without this; with it, numbers move, times are local, and rows are chosen at ease.
"use strict";

const base = document.body.dataset.base;
const live = "live" in document.body.dataset;
const title = document.title.replace(/^\([\d,]+\) /, "");

// Times: short and local where they stand, exact on hover.
function localTimes(root) {
  const now = new Date();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const time = new Date(element.dateTime);
    const today = time.toDateString() === now.toDateString();
    const clock = time.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
    const day = time.toLocaleDateString(undefined, { day: "numeric", month: "short", year: time.getFullYear() === now.getFullYear() ? undefined : "numeric" });
    element.textContent = today ? clock : `${day} ${clock}`;
    element.title = `${time.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" })}\n${element.dateTime}`;
  }
}

// What the server tells: numbers, the verdict, or the problem there is.
function setText(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

function showBanner(told) {
  const banner = document.getElementById("banner");
  banner.hidden = !told;
  if (told) {
    setText(banner.querySelector("strong"), told[0] + ".");
    setText(banner.querySelector("span"), told[1]);
  }
}

function showDead(dead) {
  document.title = dead ? `(${dead.toLocaleString("en")}) ${title}` : title;
  const badge = document.querySelector("[data-badge=dead]");
  badge.hidden = !dead;
  setText(badge, dead.toLocaleString("en"));
  document.querySelector("link[rel=icon]").href = `${base}/static/${dead ? "icon-dead" : "icon"}.svg`;
}

function show(told) {
  showBanner(told.problem);
  if (told.problem) return;
  if ("returns" in document.body.dataset) return void location.reload();
  showDead(told.dead);
  if (!live) return;
  for (const [name, text] of Object.entries(told.numbers)) {
    setText(document.querySelector(`[data-number="${name}"]`), text);
  }
  const verdict = document.getElementById("verdict");
  verdict.className = `verdict verdict-${told.verdict[0]}`;
  setText(verdict.querySelector("h1"), told.verdict[1]);
  setText(verdict.querySelector("p"), told.verdict[2]);
}

// Only while somebody looks: a browser has few connections for one server.
let source = null;
function listen() {
  if (source || document.hidden) return;
  source = new EventSource(`${base}/events`);
  source.onmessage = (event) => show(JSON.parse(event.data));
  source.onerror = () => {
    showBanner(["The console does not answer", "Tried again until it does; the numbers are old."]);
    if (source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(listen, 3000);
    }
  };
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden && source) {
    source.close();
    source = null;
  }
  listen();
});

async function drawHour() {
  if (document.hidden) return;
  try {
    const answer = await fetch(`${base}/hour`);
    if (answer.ok) document.getElementById("hour").innerHTML = await answer.text();
  } catch { /* told by the stream of events */ }
}

// Choosing rows.
const chosen = document.getElementById("chosen");
function countChosen() {
  const rows = [...chosen.querySelectorAll("[name=row]")];
  const all = chosen.querySelector("[data-all]");
  const count = rows.filter((row) => row.checked).length;
  setText(chosen.querySelector("[data-chosen]"), all.checked ? "all" : String(count));
  for (const row of rows) row.disabled = all.checked;
  const page = chosen.querySelector("[data-page]");
  page.disabled = all.checked;
  page.checked = count === rows.length;
  page.indeterminate = count > 0 && count < rows.length;
  for (const button of chosen.querySelectorAll("[data-needs-chosen]")) button.disabled = !count && !all.checked;
}
if (chosen && chosen.querySelector("[data-all]")) {
  chosen.addEventListener("change", (event) => {
    if ("page" in event.target.dataset) {
      for (const row of chosen.querySelectorAll("[name=row]")) row.checked = event.target.checked;
    }
    countChosen();
  });
  countChosen();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
});

// What takes some seconds says so, and is asked for once.
document.addEventListener("submit", (event) => {
  if (!event.target.dataset.waits) return;
  const button = event.target.querySelector("button");
  button.textContent = event.target.dataset.waits;
  button.disabled = true;
});

// `/` goes to the search, as in many consoles.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || /INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) return;
  event.preventDefault();
  document.querySelector(".find input").focus();
});

localTimes(document);
listen();
if (live) setInterval(drawHour, 10000);
