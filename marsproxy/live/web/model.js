// What the proxy has told so far: parts, sessions with their lanes, decisions.
const MAX_DECISIONS = 60;
const MAX_MARKS = 64;

export class Model {
  constructor() {
    this.parts = { backends: [], hosts: [], held: [], held_total: 0, times: null };
    this.sessions = new Map();
    this.decisions = [];
    this.dirty = new Set();
    this.counts = {};
    this.heardMs = 0;
    this.now = 0;
    this.wall = 0;
  }

  // On the proxy's clock, at this moment.
  nowS() { return this.now + (performance.now() - this.heardMs) / 1000; }
  wallOf(atS) { return this.wall + (atS - this.now); }

  snapshot(told) {
    this.sessions = new Map();
    this.decisions = [];
    this.counts = {};
    this.change(told);
    for (const name of ["backends", "hosts", "held", "held_total", "times", "sessions", "decisions"]) this.dirty.add(name);
  }

  change(told) {
    this.now = told.now;
    this.wall = told.wall;
    this.heardMs = performance.now();
    for (const name of Object.keys(this.parts)) {
      if (name in told) { this.parts[name] = told[name]; this.dirty.add(name); }
    }
    for (const row of told.sessions ?? []) this.#row(row);
    for (const id of told.gone ?? []) this.#gone(id);
    if (told.sessions || told.gone) this.dirty.add("sessions");
    if (told.decisions) {
      this.decisions = [...told.decisions.slice().reverse(), ...this.decisions].slice(0, MAX_DECISIONS);
      this.dirty.add("decisions");
    }
  }

  #row([id, state, since, backend, tokens, turns, marks]) {
    let session = this.sessions.get(id);
    if (session === undefined) {
      session = { id, marks: marks ?? [], state: null, began: marks?.[0]?.[0] ?? since };
      this.sessions.set(id, session);
    }
    this.#count(session.state, -1);
    this.#count(state, 1);
    Object.assign(session, { state, since, backend, tokens, turns });
    const last = session.marks.at(-1);
    if (last === undefined || last[0] !== since || last[1] !== state) {
      session.marks.push([since, state]);
      if (session.marks.length > MAX_MARKS) session.marks.shift();
    }
  }

  #gone(id) {
    const session = this.sessions.get(id);
    if (session !== undefined) { this.#count(session.state, -1); this.sessions.delete(id); }
  }

  #count(state, by) { if (state !== null) this.counts[state] = (this.counts[state] ?? 0) + by; }
}
