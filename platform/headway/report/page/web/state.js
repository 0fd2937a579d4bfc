/* What the page draws, and how: shared by all that follows. */
const drawn = JSON.parse(document.getElementById("drawn").textContent);
const root = document.documentElement;
const many = (selector, within) => Array.from((within || document).querySelectorAll(selector));
const state = { axis: "step", range: null, smooth: true, marks: true, log: false, printing: false };
const NARROW = "\u202f";

function element(name, attributes, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...inside);
  return made;
}

/* Packed numbers: little-endian floats or whole numbers of 32 bits. What is no number is a gap. */
function unpacked(pack) {
  if (!pack) return null;
  const text = atob(pack.f === undefined ? pack.u : pack.f);
  const view = new DataView(new ArrayBuffer(text.length));
  for (let i = 0; i < text.length; i++) view.setUint8(i, text.charCodeAt(i));
  const found = new Array(text.length / 4);
  for (let i = 0; i < found.length; i++) {
    const value = pack.f === undefined ? view.getUint32(4 * i, true) : view.getFloat32(4 * i, true);
    found[i] = Number.isNaN(value) ? null : value;
  }
  return found;
}

const clock = drawn.clock && drawn.clock.step ? { step: unpacked(drawn.clock.step), seconds: unpacked(drawn.clock.seconds) } : null;

/* A step of a second, or a second of a step, between those that are known. */
function between(from, to, value) {
  let low = 0, high = from.length - 1;
  if (high < 0) return value;
  if (value <= from[0]) return to[0];
  if (value >= from[high]) return to[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (from[middle] <= value) low = middle;
    else high = middle;
  }
  const span = from[high] - from[low];
  return span > 0 ? to[low] + ((to[high] - to[low]) * (value - from[low])) / span : to[low];
}

function place(step, seconds) {
  if (state.axis === "time") return seconds === null || seconds === undefined ? between(clock.step, clock.seconds, step) : seconds;
  return step === null || step === undefined ? (clock ? between(clock.seconds, clock.step, seconds) : seconds) : step;
}

const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const colour = (index) => css("--c" + (((index % 8) + 8) % 8));
const KINDS = { lost: "▼", joined: "▲", restart: "◆", resize: "■", slow: "◐", quarantine: "✕", warned: "!", checkpoint: "∘" };
const sign = (kind) => KINDS[kind] || "●";
const tone = (kind) => css(["lost", "joined", "restart", "resize"].includes(kind) ? "--" + kind : "--other");

function shown(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return value.toLocaleString("en-GB");
  if (size >= 1000) return value.toLocaleString("en-GB", { maximumFractionDigits: 1 });
  return size !== 0 && size < 1e-4 ? value.toExponential(2) : String(+value.toPrecision(4));
}

function lasting(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const sound = Math.abs(seconds);
  if (sound < 60) return +sound.toFixed(sound < 10 ? 2 : 1) + NARROW + "s";
  if (sound < 3600) return Math.floor(sound / 60) + NARROW + "min " + Math.floor(sound % 60) + NARROW + "s";
  if (sound < 86400) return Math.floor(sound / 3600) + NARROW + "h " + Math.floor((sound % 3600) / 60) + NARROW + "min";
  return Math.floor(sound / 86400) + NARROW + "d " + Math.floor((sound % 86400) / 3600) + NARROW + "h";
}

/* The same at an axis, where it is a round one. */
function round(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, name] = parts.find(([size]) => seconds >= size && Number.isInteger(seconds / size)) || parts[3];
  return +(seconds / size).toFixed(2) + NARROW + name;
}

function measure(value, unit) {
  if (unit === "s") return value === null ? "–" : lasting(value);
  if (unit === "share") return value === null ? "–" : +(100 * value).toFixed(1) + NARROW + "%";
  if (unit === "B" || unit === "B/s") {
    if (value === null) return "–";
    const power = value > 0 ? Math.max(0, Math.min(3, Math.floor(Math.log10(value) / 3))) : 0;
    return +(value / 1000 ** power).toPrecision(3) + NARROW + ["", "k", "M", "G"][power] + unit;
  }
  return shown(value);
}

const where = (x) => (state.axis === "time" ? lasting(x) : "step " + shown(Math.round(x)));
