// Everything but the lanes: tiles, backends, hosts, who waits, decisions.
import { UNKNOWN, clock, count, make, seconds, setText, short } from "./text.js";

const at = (id) => document.getElementById(id);

export function idButton(session, open) {
  const button = make("button", { type: "button", className: "id", textContent: session.slice(0, 12), title: session });
  button.setAttribute("aria-label", `story of session ${session}`);
  button.addEventListener("click", () => open(session, button));
  return button;
}

const TILES = [
  ["generating", "generating"], ["tool", "in a tool"], ["held", "held"], ["evicted", "evicted"],
];

export function tiles(model) {
  const times = model.parts.times ?? { ttft: { p50: null }, jct: { p50: null } };
  const shown = TILES.map(([state, title]) => [title, count(model.counts[state] ?? 0), "", `t-${state}`]);
  for (const [name, title, window] of [["ttft", "TTFT now", "last minute"], ["jct", "JCT now", "last 10 min"]]) {
    const { n = 0, p50, p95 } = times[name];
    shown.push([title, seconds(p50), p50 === null ? `none in the ${window}` : `p95 ${seconds(p95)}, ${count(n)} in the ${window}`, ""]);
  }
  const list = at("tiles");
  while (list.children.length < shown.length) list.append(make("div", {}, make("dt"), make("dd", {}, "", make("small"))));
  shown.forEach(([title, value, note, name], index) => {
    const [term, said] = list.children[index].children;
    if (list.children[index].className !== name) list.children[index].className = name;
    setText(term, title);
    if (said.firstChild.nodeType !== Node.TEXT_NODE) said.prepend("");
    if (said.firstChild.data !== value) said.firstChild.data = value;
    setText(said.querySelector("small"), note);
    said.classList.toggle("unknown", value === UNKNOWN);
  });
}

const SHOWN_STATES = { serving: "", unknown: "nothing heard lately", unreachable: "unreachable", draining: "draining", gone: "gone" };

export function backends({ parts }) {
  fill(at("backends"), parts.backends, "No backend.", (row) => {
    const wrong = row.state === "unreachable" || row.state === "gone" || row.state === "unknown";
    const running = `${count(row.running)} running, ${count(row.waiting)} waiting`;
    const head = make("div", { className: "row-head" }, make("b", { textContent: row.name }),
      make("span", { className: wrong ? "state wrong" : "state", textContent: SHOWN_STATES[row.state] || running }));
    const leased = row.takes_hints ? `${short(row.leased)} leased` : row.leased ? `${short(row.leased)} leased` : "no leases";
    const use = row.pool === null ? "KV use unknown"
      : `${short(row.used)} in use, ${leased}, ${short(row.free)} free, of ${short(row.pool)} tokens`;
    const promise = row.budget === null ? "budget unknown"
      : `promised ${short(row.reserved)} of ${short(row.budget)} to ${count(row.sessions)} sessions`;
    return make("div", { className: "row" }, head, bar(row), make("p", { textContent: `${use}; ${promise}` }));
  });
}

function bar(row) {
  const box = make("div", { className: "bar" });
  box.setAttribute("aria-hidden", "true");
  if (row.pool === null || row.used === null) { box.classList.add("unknown"); return box; }
  for (const part of ["used", "leased"]) box.append(part_of(part, "width", row[part] ?? 0, row.pool));
  if (row.reserved !== null) box.append(part_of("promised", "left", row.reserved, row.pool));
  return box;
}

function part_of(name, property, tokens, pool) {
  const part = make("i", { className: name });
  const share = `${Math.min(100, (100 * tokens) / pool)}%`;
  part.style[property] = property === "left" ? `calc(${share} - 2px)` : share; // more than all is at the end
  return part;
}

export function hosts({ parts }) {
  fill(at("hosts"), parts.hosts, "Unknown: no gateway has told of its hosts lately.", (row) => {
    const queue = row.queue_wait_s === null ? "" : ` (${seconds(row.queue_wait_s)} to a slot)`;
    const head = make("div", { className: "row-head" }, make("b", { textContent: row.name }),
      make("span", { className: "state", textContent: `${count(row.running)} running, ${count(row.queued)} waiting${queue}` }));
    const free = row.memory_available_mb, total = row.memory_total_mb, box = make("div", { className: "bar" });
    box.setAttribute("aria-hidden", "true");
    if (free === null || !total) box.classList.add("unknown");
    else box.append(part_of("used", "width", total - free, total));
    const gib = (mb) => (mb === null ? UNKNOWN : `${(mb / 1024).toFixed(1)} GiB`);
    const words = `cores ${count(row.cores)}; memory available ${gib(free)} of ${gib(total)}`;
    return make("div", { className: "row" }, head, box, make("p", { textContent: words }));
  });
}

function fill(box, rows, empty, draw) {
  const top = box.scrollTop;
  box.replaceChildren(...(rows.length ? rows.map(draw) : [make("p", { className: "note", textContent: empty })]));
  box.scrollTop = top;
}

// Rows are kept by session, so that neither a focus nor a click is lost when the next view comes.
const heldRows = new Map();

export function held(model, open) {
  const { held: rows, held_total: total } = model.parts, body = at("held"), now = model.nowS(), kept = new Set();
  setText(at("held-count"), total ? (total > rows.length ? `${count(total)}, the first ${rows.length} shown` : count(total)) : "");
  at("held-empty").hidden = rows.length > 0;
  body.parentElement.hidden = rows.length === 0;
  rows.forEach((row, index) => {
    const key = `${row.session} ${row.since}`;
    kept.add(key);
    let line = heldRows.get(key);
    if (line === undefined) {
      line = make("tr", {}, make("td", { className: "number" }), make("td", {}, idButton(row.session, open)), make("td", { className: "number" }), make("td"));
      heldRows.set(key, line);
    }
    setText(line.children[0], `${index + 1}`);
    setText(line.children[2], seconds(Math.max(0, now - row.since)));
    setText(line.children[3], row.why);
    if (body.children[index] !== line) body.insertBefore(line, body.children[index] ?? null);
  });
  for (const [key, line] of heldRows) if (!kept.has(key)) { line.remove(); heldRows.delete(key); }
}

let latest = 0;

export function decisions(model, open, isWhole) {
  const list = at("decisions");
  if (isWhole) { list.replaceChildren(); latest = 0; }
  const news = model.decisions.filter(({ n }) => n > latest);
  const lines = news.map(({ at: when, session, words }) =>
    make("li", {}, make("time", { textContent: clock(when) }), idButton(session, open), ` ${words}`));
  const isReading = list.scrollTop > 0, before = list.scrollHeight;
  list.prepend(...lines);
  if (isReading) list.scrollTop += list.scrollHeight - before;
  while (list.children.length > 60) list.lastElementChild.remove();
  latest = Math.max(latest, ...news.map(({ n }) => n));
}
