// Asks for what another policy would have decided, and shows it beside what was.
import { headers, keep } from "./stream.js";
import { UNKNOWN, clock, count, make, seconds, setText } from "./text.js";

const at = (id) => document.getElementById(id);
const ROWS = [
  ["forwarded", "forwarded", count], ["held", "held", count], ["still_held", "still held at the end", count],
  ["refused", "refused", count], ["held_p50_s", "held for, median", held], ["held_p95_s", "held for, p95", held],
];

function held(value) { return value === null ? "none was" : seconds(value); }

async function ask() {
  const query = new URLSearchParams();
  if (at("policy").value) query.set("policy", at("policy").value);
  if (at("change").value.trim()) query.append("set", at("change").value.trim());
  setText(at("said"), "Replaying the log …");
  at("answer").hidden = true;
  try {
    const answer = await fetch(`/mars/v1/what-if?${query}`, { headers: headers(), cache: "no-store" });
    const told = await answer.json();
    if (answer.status === 401) at("key-form").hidden = false;
    if (!answer.ok) { setText(at("said"), told.error?.message ?? `status ${answer.status}`); return; }
    show(told);
  } catch { setText(at("said"), "The proxy does not answer."); }
}

function show({ recorded, asked, window_s, ended_at, stopped }) {
  setText(at("recorded"), `recorded (${recorded.policy ?? UNKNOWN})`);
  setText(at("asked"), `what if (${[asked.policy, ...asked.changes].join(" ")})`);
  at("rows").replaceChildren(...ROWS.map(([name, title, words]) => make("tr", {},
    make("th", { scope: "row", textContent: title }),
    make("td", { className: "number", textContent: words(recorded[name]) }),
    make("td", { className: "number", textContent: words(asked[name]) }))));
  at("answer").hidden = false;
  const until = `The ${Math.round(window_s / 60)} minutes up to ${clock(ended_at)}.`;
  setText(at("said"), stopped ? `${until} Stopped early: ${stopped}` : until);
}

at("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(at("key").value);
  at("key").value = "";
  at("key-form").hidden = true;
  ask();
});
