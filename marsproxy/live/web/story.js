// One session's story, in a panel that is asked for anew while it is open.
import { clock, make, seconds, setText } from "./text.js";
import { headers } from "./stream.js";

const AGAIN_MS = 1500;
const panel = document.getElementById("story");
const SHOWN = {
  needed_tokens: "needs", budget_tokens: "may be promised", reserved_tokens: "promised", leased_tokens: "leased",
  pool_tokens: "pool", waited_s: "waited", gap_s: "gap", gap_expected_s: "gap expected",
};

export class Story {
  constructor() {
    this.session = null;
    this.last = "";
    document.getElementById("story-close").addEventListener("click", () => this.close());
    panel.addEventListener("keydown", (event) => { if (event.key === "Escape") this.close(); });
  }

  open(session, from) {
    this.from = from;
    this.session = session;
    this.last = "";
    setText(document.getElementById("story-title"), `Session ${session}`);
    setText(document.getElementById("story-summary"), "");
    document.getElementById("story-events").replaceChildren();
    panel.hidden = false;
    document.getElementById("story-title").focus();
    this.#ask(session);
  }

  close() {
    this.session = null;
    panel.hidden = true;
    if (this.from?.isConnected) this.from.focus();
  }

  async #ask(session) {
    while (this.session === session) {
      try {
        const answer = await fetch(`/mars/v1/sessions/${encodeURIComponent(session)}/why`, { headers: headers(), cache: "no-store" });
        if (this.session !== session) return;
        if (answer.ok) this.#show(await answer.json());
        else setText(document.getElementById("story-summary"), answer.status === 404 ? "Nothing is known of this session any more." : "The proxy did not answer.");
      } catch { setText(document.getElementById("story-summary"), "The proxy does not answer."); }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  #show(told) {
    setText(document.getElementById("story-summary"), told.summary);
    const key = told.story.map(({ at, kind }) => at + kind).join();
    if (key === this.last) return;
    this.last = key;
    document.getElementById("story-events").replaceChildren(...told.story.slice().reverse().map(line));
  }
}

function line({ at, kind, words, numbers }) {
  const item = make("li", { className: `e-${kind}` }, make("time", { textContent: clock(Date.parse(at) / 1000) }), words);
  const known = Object.entries(SHOWN).filter(([name]) => typeof numbers[name] === "number");
  if (known.length && kind === "held") {
    item.append(make("dl", {}, ...known.flatMap(([name, title]) => [make("dt", { textContent: title }), make("dd", { textContent: value(name, numbers[name]) })])));
  }
  return item;
}

function value(name, number) {
  return name.endsWith("_s") ? seconds(number) : Math.round(number).toLocaleString("en");
}
