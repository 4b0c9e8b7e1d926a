// Sessions as lanes in time. Only the rows in sight exist: a canvas for the lanes, and one option of a
// listbox for each row, which is what keyboards and screen readers use.
import { STATE_WORDS, make, seconds, setText, short } from "./text.js";

const ROW = 24;
const HEAD = 24;
const FRAME_MS = 33;
const STATES = ["generating", "tool", "held", "evicted", "idle", "over"];

export class Lanes {
  constructor(model, open) {
    this.model = model;
    this.open = open;
    this.canvas = document.getElementById("canvas");
    this.scroller = document.getElementById("lane-scroll");
    this.space = document.getElementById("lane-space");
    this.shown = [];
    this.options = [];
    this.chosen = null;
    this.drawnMs = 0;
    this.frozenS = null;
    this.stateFilter = document.getElementById("state-filter");
    this.idFilter = document.getElementById("id-filter");
    this.span = document.getElementById("span");
    this.#colours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.#colours(); this.draw(); });
    new ResizeObserver(() => this.#resize()).observe(this.scroller);
    for (const control of [this.stateFilter, this.idFilter, this.span]) control.addEventListener("input", () => this.refresh());
    this.scroller.addEventListener("scroll", () => { this.#place(); this.draw(); }, { passive: true });
    this.scroller.addEventListener("keydown", (event) => this.#key(event));
    this.scroller.addEventListener("focus", () => { if (this.chosen === null && this.shown.length) this.#choose(0); });
    this.scroller.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) { this.chosen = option.dataset.session; this.#place(); this.open(this.chosen, this.scroller); }
    });
    this.#resize();
  }

  // Which sessions are listed, and in an order in which a row stays where it is while its session works:
  // those at work by their beginning, then those that have come to rest.
  refresh() {
    const state = this.stateFilter.value, wanted = this.idFilter.value.trim().toLowerCase();
    this.shown = [];
    for (const session of this.model.sessions.values()) {
      if ((!state || session.state === state) && (!wanted || session.id.includes(wanted))) this.shown.push(session);
    }
    this.shown.sort((a, b) => isResting(a) - isResting(b) || a.began - b.began);
    this.space.style.height = `${this.shown.length * ROW}px`;
    const all = this.model.sessions.size;
    setText(document.getElementById("sessions-count"), this.shown.length === all ? `${all}` : `${this.shown.length} of ${all}`);
    document.getElementById("lanes-empty").hidden = this.shown.length > 0;
    this.#place();
    this.draw();
  }

  // Called for each frame: time goes on between two messages. Whether it drew.
  tick(ms) {
    if (ms - this.drawnMs < FRAME_MS) return false;
    this.drawnMs = ms;
    this.draw();
    return true;
  }

  #colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colours = Object.fromEntries([...STATES, "grid", "ink-soft", "panel"].map((name) => [name, of(name)]));
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.scroller, scale = devicePixelRatio || 1;
    this.width = width; this.height = height;
    this.gutter = width < 560 ? 148 : 218;
    this.canvas.width = Math.round(width * scale); this.canvas.height = Math.round(height * scale);
    this.canvas.style.width = `${width}px`; this.canvas.style.height = `${height}px`;
    this.context = this.canvas.getContext("2d");
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.#place();
    this.draw();
  }

  #range() {
    const first = Math.floor(this.scroller.scrollTop / ROW);
    return [Math.max(0, first), Math.min(this.shown.length, first + Math.ceil(this.height / ROW) + 1)];
  }

  #place() {
    const [first, end] = this.#range();
    while (this.options.length < end - first) {
      const option = make("div", { className: "lane", role: "option", id: `lane-${this.options.length}` });
      this.options.push(option);
      this.space.append(option);
    }
    let active = null;
    this.options.forEach((option, index) => {
      const session = this.shown[first + index];
      option.hidden = first + index >= end;
      if (option.hidden) return;
      const isChosen = session.id === this.chosen;
      option.style.transform = `translateY(${(first + index) * ROW}px)`;
      option.dataset.session = session.id;
      option.setAttribute("aria-selected", isChosen);
      option.setAttribute("aria-posinset", first + index + 1);
      option.setAttribute("aria-setsize", this.shown.length);
      option.setAttribute("aria-label", spoken(session, this.model.nowS()));
      setText(option, `${session.id.slice(0, this.gutter < 200 ? 7 : 10)} ${STATE_WORDS[session.state]}`);
      if (isChosen) active = option.id;
    });
    if (active) this.scroller.setAttribute("aria-activedescendant", active);
    else this.scroller.removeAttribute("aria-activedescendant");
  }

  draw() {
    const { context, width, height, colours, gutter } = this, now = this.frozenS ?? this.model.nowS(), spanS = Number(this.span.value);
    const x = (atS) => gutter + (width - gutter) * (1 - (now - atS) / spanS);
    context.clearRect(0, 0, width, height);
    this.#grid(x, now, spanS);
    const [first, end] = this.#range(), top = HEAD - this.scroller.scrollTop;
    context.save();
    context.beginPath();
    context.rect(gutter, HEAD, width - gutter, height - HEAD);
    context.clip();
    for (let index = first; index < end; index++) this.#lane(this.shown[index], top + index * ROW, x, now, now - spanS);
    context.restore();
    context.fillStyle = colours.panel;
    context.fillRect(0, 0, width, HEAD);
    this.#ticks(x, now, spanS);
  }

  #lane({ marks }, y, x, now, fromS) {
    for (let i = marks.length - 1, until = now; i >= 0 && until > fromS; until = marks[i--][0]) {
      const [atS, state] = marks[i], left = x(Math.max(atS, fromS)), isThin = state === "idle" || state === "over";
      this.context.fillStyle = this.colours[state];
      this.context.fillRect(left, y + (isThin ? 9 : 5), Math.max(1, x(until) - left), isThin ? 6 : 14);
    }
  }

  #step(spanS) { return spanS <= 60 ? 15 : spanS <= 120 ? 30 : 60; }

  #grid(x, now, spanS) {
    this.context.fillStyle = this.colours.grid;
    for (let ago = 0; ago <= spanS; ago += this.#step(spanS)) this.context.fillRect(Math.round(x(now - ago)) - 1, HEAD, 1, this.height);
  }

  #ticks(x, now, spanS) {
    this.context.fillStyle = this.colours["ink-soft"];
    this.context.font = "12px system-ui, sans-serif";
    const step = this.width - this.gutter < 420 ? 2 * this.#step(spanS) : this.#step(spanS);
    for (let ago = 0; ago <= spanS; ago += step) {
      this.context.textAlign = ago === 0 ? "right" : ago >= spanS ? "left" : "center";
      this.context.fillText(ago === 0 ? "now" : ago < 60 ? `−${ago} s` : `−${ago / 60} min`, x(now - ago), 15);
    }
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.height / ROW) - 2), at = this.shown.findIndex(({ id }) => id === this.chosen);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.shown.length - 1 }[event.key];
    if (to !== undefined && this.shown.length) {
      event.preventDefault();
      this.#choose(Math.min(this.shown.length - 1, Math.max(0, to)));
    } else if ((event.key === "Enter" || event.key === " ") && this.chosen !== null) {
      event.preventDefault();
      this.open(this.chosen, this.scroller);
    }
  }

  #choose(index) {
    this.chosen = this.shown[index].id;
    const top = index * ROW, room = this.height - HEAD;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + ROW > this.scroller.scrollTop + room) this.scroller.scrollTop = top + ROW - room;
    this.#place();
  }
}

function isResting({ state }) { return state === "idle" || state === "over"; }

function spoken(session, nowS) {
  const tokens = session.tokens === null ? "context unknown" : `context ${short(session.tokens)} tokens`;
  return `session ${session.id}, ${STATE_WORDS[session.state]} for ${seconds(Math.max(0, nowS - session.since))}, ${tokens}`;
}
