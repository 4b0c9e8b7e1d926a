// Puts the parts together: what comes is applied at once, and drawn once a frame.
import { Lanes } from "./lanes.js";
import { Model } from "./model.js";
import * as panels from "./panels.js";
import { Story } from "./story.js";
import { follow, keep } from "./stream.js";
import { setText } from "./text.js";

const model = new Model(), story = new Story();
const open = (session, from) => story.open(session, from);
const lanes = new Lanes(model, open);
const isStill = matchMedia("(prefers-reduced-motion: reduce)");
const pause = document.getElementById("pause");
let isPaused = false, isWhole = false, linkState = "lost";

function render() {
  const { dirty } = model, startMs = performance.now();
  if (dirty.size === 0) return;
  if (dirty.has("sessions") || dirty.has("times")) panels.tiles(model);
  if (dirty.has("backends")) panels.backends(model);
  if (dirty.has("hosts")) panels.hosts(model);
  if (dirty.has("decisions")) panels.decisions(model, open, isWhole);
  panels.held(model, open);
  if (dirty.has("sessions")) lanes.refresh();
  else if (isStill.matches) lanes.draw();
  isWhole = false;
  dirty.clear();
  measure("mars-draw", startMs);
}

function measure(name, startMs) {
  performance.measure(name, { start: startMs, end: performance.now() });
  performance.clearMeasures(name); // observers have it; the page's own list would grow for ever
}

function apply(name, data) {
  const startMs = performance.now(), told = JSON.parse(data);
  if (name === "snapshot") { isWhole = true; model.snapshot(told); } else model.change(told);
  measure("mars-apply", startMs);
}

function frame(ms) {
  if (!isPaused) {
    render();
    const startMs = performance.now();
    if (!isStill.matches && lanes.tick(ms)) measure("mars-lanes", startMs);
  }
  requestAnimationFrame(frame);
}

const LINK = { live: "live", lost: "connection lost; trying again", key: "needs a token" };

function link(state) {
  linkState = state;
  setText(document.getElementById("link-text"), isPaused && state === "live" ? "paused" : LINK[state]);
  document.getElementById("link-dot").className = `dot ${state}`;
}

pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.setAttribute("aria-pressed", isPaused);
  lanes.frozenS = isPaused ? model.nowS() : null; // what comes is taken in all the same, and not shown
  link(linkState);
});

follow("/mars/v1/live", {
  state: link,
  event: apply,
  key: () => new Promise((resolve) => {
    const form = document.getElementById("key-form"), field = document.getElementById("key");
    form.hidden = false;
    field.focus();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      keep(field.value);
      field.value = "";
      form.hidden = true;
      resolve();
    }, { once: true });
  }),
});
requestAnimationFrame(frame);
