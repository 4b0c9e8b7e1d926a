// How values are written. What is null is unknown, and is never written as a number.
export const UNKNOWN = "unknown";
const whole = new Intl.NumberFormat("en");

export function count(value) {
  return value === null || value === undefined ? UNKNOWN : whole.format(Math.round(value));
}

export function short(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value < 10_000) return whole.format(Math.round(value));
  return value < 999_500 ? `${Math.round(value / 1000)}k` : `${(value / 1e6).toFixed(2)}M`;
}

export function seconds(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value < 0.0995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 99.5) return `${Math.round(value)} s`;
  return value < 5970 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
}

export function clock(wall) {
  return new Date(wall * 1000).toLocaleTimeString("en-GB");
}

// An element; text is only ever set as text.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const STATE_WORDS = {
  generating: "generating", tool: "tool", held: "held", evicted: "evicted", idle: "at rest", over: "over",
};
