// Pages are whole without this. It does five things: lets a page take over its own changed parts
// when the server says that something has changed, shows a build log as it is written, marks ranges
// of lines, obeys keys, and lets times count on.
"use strict";

const link = document.getElementById("link");

function say(state) {
  link.hidden = false;
  link.textContent = state;
  link.className = "link " + (state === "live" ? "on" : "off");
}

// ---- parts that change ----

// The page asks for those of its parts that differ from the version that it shows, at most every PAUSE ms. When
// many parts change all the time, it asks more rarely: its answers may cost RATE bytes per ms (6 kB/s), and each
// question costs HEADS bytes besides. A question that is refused for now, or that fails, is asked again after REFUSED
// ms, since nothing else may tell the page of the change.

const PAUSE = 400;
const RATE = 6;
const HEADS = 1000;
const REFUSED = 5000;

let version = `W/"${document.body.dataset.version}"`;
let asking = false;
let again = false;

async function refresh() {
  // One question at a time, and none for a page that nobody sees; a change meanwhile leads to one more.
  again = asking || document.hidden;
  if (again) return;
  asking = true;
  let pause = HEADS / RATE;
  try {
    const headers = { accept: "text/html", "x-brigandine-parts": "1", "if-none-match": version };
    if (log?.stream) headers["x-brigandine-follows"] = log.dataset.attempt;
    const answer = await fetch(location.href, { headers });
    // If nothing differs, the answer is 304.
    if (answer.ok) {
      pause += Number(answer.headers.get("content-length")) / RATE;
      takeOver(new DOMParser().parseFromString(await answer.text(), "text/html"));
      version = answer.headers.get("etag");
    } else if (answer.status === 429 || answer.status >= 500) {
      again = true;
      pause = REFUSED;
    }
  } catch {
    // The stream of events has another connection, so it may go on.
    again = true;
    pause = REFUSED;
  }
  setTimeout(() => {
    asking = false;
    if (again) refresh();
  }, Math.max(PAUSE, pause));
}

document.addEventListener("visibilitychange", () => {
  if (again && !asking) refresh();
});

function takeOver(page) {
  const parts = new Map();
  for (const part of document.querySelectorAll("[data-part]")) parts.set(part.dataset.part, part);
  for (const fresh of [...page.body.children]) {
    const part = parts.get(fresh.dataset.part);
    if (!part) continue;
    if (part === log) {
      takeOverLog(fresh);
      continue;
    }
    // A link that has the focus keeps it.
    const focused = part.contains(document.activeElement) && document.activeElement.getAttribute("href");
    for (const { name, value } of fresh.attributes) part.setAttribute(name, value);
    part.replaceChildren(...fresh.childNodes);
    if (focused) (part.matches(same(focused)) ? part : part.querySelector(same(focused)))?.focus();
  }
  document.title = page.title;
  tick();
}

function same(href) {
  return `a[href="${CSS.escape(href)}"]`;
}

function listen() {
  const events = new EventSource(document.body.dataset.live);
  const leave = () => events.close();
  events.addEventListener("change", refresh);
  events.onopen = () => say("live");
  events.onerror = () => {
    say("connecting");
    // Cut connections are opened again by the browser; refused ones (too many streams) are not.
    if (events.readyState === EventSource.CLOSED) {
      removeEventListener("pagehide", leave);
      setTimeout(listen, 5000);
    }
  };
  addEventListener("pagehide", leave);
}

if (document.body.dataset.live) listen();
// Back from the browser's memory: what happened meanwhile was not heard.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// ---- the build log ----

// The element has the log of one attempt. `log.stream` is open while it is followed, `log.complete` says that it
// has all of it.

const LINES_MAX = 20000;
const log = document.getElementById("log");
const wanted = document.getElementById("follow");

function stick() {
  if (wanted.checked) log.scrollTop = log.scrollHeight;
}

// The log of another attempt, or one that could not be followed to its end.
function takeOverLog(fresh) {
  if (!log || !fresh) return;
  const other = log.dataset.attempt !== fresh.dataset.attempt;
  if (!other && (log.stream || log.complete)) return;
  if (!other && log.innerHTML === fresh.innerHTML && !fresh.dataset.log) return;
  log.stream?.close();
  log.stream = null;
  log.replaceChildren(...fresh.childNodes);
  log.className = fresh.className;
  for (const name of ["attempt", "log", "end"]) {
    if (name in fresh.dataset) log.dataset[name] = fresh.dataset[name];
    else delete log.dataset[name];
  }
  begin();
}

function begin() {
  // Of an empty one the words may still change.
  log.complete = !log.dataset.log && log.querySelector(".l") !== null;
  wanted.parentElement.hidden = !log.dataset.log;
  if (log.dataset.log) follow();
  // Why a build failed stands at the end.
  if (log.dataset.log || "end" in log.dataset) log.scrollTop = log.scrollHeight;
}

function follow() {
  const lines = new EventSource(log.dataset.log);
  log.stream = lines;
  const add = (html) => {
    if (log.stream !== lines) return;
    log.querySelector(".part")?.remove();
    document.getElementById("nolog")?.remove();
    log.insertAdjacentHTML("beforeend", html);
    if (log.childElementCount > LINES_MAX) {
      log.classList.remove("numbered");
      while (log.childElementCount > LINES_MAX) log.firstElementChild.remove();
    }
    stick();
  };
  lines.onmessage = (event) => add(event.data);
  lines.addEventListener("part", (event) => add(event.data));
  lines.addEventListener("end", () => {
    lines.close();
    if (log.stream !== lines) return;
    log.stream = null;
    wanted.parentElement.hidden = true;
    // With nothing printed, the page that tells of the build's end says so.
    log.complete = log.querySelector(".l") !== null;
  });
  // Refused or of another attempt: the next change of the page tries again.
  lines.onerror = () => {
    if (lines.readyState === EventSource.CLOSED && log.stream === lines) log.stream = null;
  };
  addEventListener("pagehide", () => lines.close());
}

if (log) {
  begin();
  // Scrolling up stops following, scrolling to the end goes on with it.
  log.addEventListener("scroll", () => {
    wanted.checked = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  }, { passive: true });
}

// ---- the lines of a log ----

// The address names a line (#L10), which the browser shows, or a range of them (#L10-20). With the shift key, a number
// makes a range that begins at the line before.

const lines = document.getElementById("lines");
const RANGE = /^#L(\d+)-L?(\d+)$/;

function mark() {
  for (const line of lines.querySelectorAll(".here")) line.classList.remove("here");
  const range = RANGE.exec(location.hash);
  if (!range) return;
  const [from, to] = range.slice(1).map(Number);
  const marked = [...lines.children].filter((line) => {
    const number = Number(line.id.slice(1));
    return number >= from && number <= to;
  });
  for (const line of marked) line.classList.add("here");
  marked[0]?.scrollIntoView({ block: "center" });
}

if (lines) {
  mark();
  addEventListener("hashchange", mark);
  lines.addEventListener("click", (event) => {
    const first = /^#L(\d+)/.exec(location.hash);
    if (!event.shiftKey || !first || !event.target.matches(".l > a")) return;
    event.preventDefault();
    const [from, to] = [Number(first[1]), Number(event.target.textContent)].sort((one, other) => one - other);
    location.hash = `L${from}-${to}`;
  });
}

// ---- keys ----

// A letter that nobody types into a field does what the list behind `?` says.

const ROWS = "main .row > a, main a.last";

function step(by) {
  const rows = [...document.querySelectorAll(ROWS)];
  const at = rows.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : rows.length - 1) : at + by;
  rows[next]?.focus();
}

function press(selector) {
  document.querySelector(selector)?.click();
}

const KEYS = {
  j: ["the next row", () => step(1)],
  k: ["the row before", () => step(-1)],
  e: ["the first failure; on its page, the first error of its log",
    () => press(document.querySelector('main a[href*="line=error"]') ? 'main a[href*="line=error"]' : "main .row.bad > a")],
  f: ["follow the log, or stop following it", () => press("label:not([hidden]) > #follow")],
  "/": ["the field for searches", () => document.querySelector("main input[type=search]")?.focus()],
  h: ["the overview", () => press("a.brand")],
  q: ["the queue", () => press('header a[href$="/queue"]')],
  "?": ["this list", help],
};

function help() {
  let dialog = document.querySelector("dialog");
  if (!dialog) {
    dialog = document.createElement("dialog");
    dialog.setAttribute("aria-label", "Keys");
    const list = document.createElement("dl");
    for (const [key, [what]] of Object.entries(KEYS)) {
      const [name, text] = ["dt", "dd"].map((tag) => document.createElement(tag));
      name.append(key);
      text.append(what);
      list.append(name, text);
    }
    dialog.append(list);
    document.body.append(dialog);
  }
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches?.("input, textarea, select")) return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key][1]();
});

// ---- times ----

function ago(seconds) {
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 5184000) return `${Math.floor(seconds / 86400)} d ago`;
  if (seconds < 63072000) return `${Math.floor(seconds / 2592000)} months ago`;
  return `${Math.floor(seconds / 31536000)} years ago`;
}

function lasted(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) {
    const rest = seconds % 60;
    return `${Math.floor(seconds / 60)} min${rest ? ` ${rest} s` : ""}`;
  }
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h`;
}

// The server's clock and this one may differ; what the server wrote first is taken for right.
function tick() {
  const now = Math.floor(Date.now() / 1000);
  for (const time of document.querySelectorAll("[data-at]")) {
    const text = ago(Math.max(0, now - Number(time.dataset.at)));
    if (time.textContent !== text) time.textContent = text;
  }
  for (const time of document.querySelectorAll("[data-due]")) {
    const left = Number(time.dataset.due) - now;
    const text = left > 0 ? `in ${lasted(left)}` : "due now";
    if (time.textContent !== text) time.textContent = text;
  }
  for (const span of document.querySelectorAll("[data-since]")) {
    const text = lasted(Math.max(0, now - Number(span.dataset.since)));
    if (span.textContent !== text) span.textContent = text;
  }
}

setInterval(tick, 1000);
