/* One chart: uPlot with keys that switch series, words under the pointer, and a zoom that all charts share. */
const plots = [];
const EDGE = 20;
const COUNTS = [1, 2, 5].flatMap((n) => Array.from({ length: 10 }, (_, power) => n * 10 ** power)).sort((a, b) => a - b);
const TIMES = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800, 2592000];
/* How far apart marks of an axis may be: whole steps; and times of which people speak. */
let wholeRange = {};

/* From where to where the page's charts go. */
function full() {
  if (wholeRange[state.axis]) return wholeRange[state.axis];
  let low = Infinity, high = -Infinity;
  const take = (x) => { if (x !== null && Number.isFinite(x)) { low = Math.min(low, x); high = Math.max(high, x); } };
  for (const chart of drawn.plots || []) {
    if (chart.own) continue;
    if (chart.kind === "lines" || chart.kind === "steps") {
      for (const one of chart.series) { const xs = overX(one)[0]; if (xs.length) { take(xs[0]); take(xs[xs.length - 1]); } }
    } else if (chart.kind === "stack") {
      const seconds = unpacked(chart.at);
      take(place(null, seconds[0]));
      take(place(null, seconds[seconds.length - 1]));
    } else if (chart.kind === "lanes") chart.step.forEach((step, i) => take(place(step, chart.seconds[i])));
  }
  for (const mark of drawn.marks || []) take(place(mark.step, mark.seconds));
  if (!(low < Infinity)) [low, high] = [0, 1];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  return (wholeRange[state.axis] = [Math.max(0, low), high]);
}

const seen = () => state.range || full();

function zoom(low, high) {
  const [first, last] = full(), least = (last - first) / 5000;
  low = Math.max(first, low);
  high = Math.min(last, high);
  if (high - low < least) { const middle = (low + high) / 2; low = middle - least / 2; high = middle + least / 2; }
  state.range = low <= first && high >= last ? null : [low, high];
  for (const plot of plots) if (plot.u && !plot.chart.own) plot.u.setScale("x", { min: seen()[0], max: seen()[1] });
  moved();
}

function marksIn(low, high) {
  return (drawn.marks || []).filter((mark) => { const x = place(mark.step, mark.seconds); return x >= low && x <= high; });
}

/* Upright lines where something happened; none for what happens all the time. */
function drawMarks(u) {
  if (!state.marks || u.apart) return;
  const [low, high] = seen(), there = marksIn(low, high).filter((mark) => mark.kind !== "checkpoint");
  const { ctx } = u, ratio = devicePixelRatio || 1, { top, height } = u.bbox;
  ctx.save();
  ctx.lineWidth = ratio;
  ctx.globalAlpha = there.length > 40 ? 0.3 : 0.65;
  ctx.setLineDash([3 * ratio, 3 * ratio]);
  for (const mark of there) {
    const x = Math.round(u.valToPos(place(mark.step, mark.seconds), "x", true)) + 0.5;
    ctx.strokeStyle = tone(mark.kind);
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
  }
  ctx.restore();
}

class Plot {
  constructor(figure, chart) {
    this.figure = figure;
    this.chart = chart;
    this.box = figure.querySelector(".canvas");
    this.keysBox = figure.querySelector(".keys");
    this.off = new Set();
    this.tip = element("div", { class: "tip", hidden: "" });
    this.u = null;
    this.listen();
  }

  build() {
    const kept = this.u && this.u.cursor.left;
    if (this.u) this.u.destroy();
    const axis = state.axis;
    if (this.chart.own) state.axis = this.chart.own === "bytes" ? "time" : this.chart.own; // another axis than the page's
    const made = (this.made = makers[this.chart.kind](this.chart));
    state.axis = axis;
    made.series.forEach((one, i) => { if (i && this.hidden(i)) one.show = false; });
    this.width = this.box.clientWidth;
    this.u = new uPlot(this.options(made), made.data, this.box);
    this.box.append(this.tip);
    this.keys();
    this.figure.dataset.ready = "yes";
    if (kept > 0) this.u.setCursor({ left: kept, top: 1 }, false);
  }

  get range() {
    const xs = this.made.data[0];
    return this.chart.own ? [xs[0], xs[xs.length - 1]] : seen();
  }

  hidden(i) {
    return this.made.keys.some((key) => this.off.has(key.number) && key.own.includes(i));
  }

  options(made) {
    const ink = css("--soft"), line = css("--line"), gutter = parseInt(css("--gutter"), 10);
    const font = "11px " + getComputedStyle(document.body).fontFamily;
    const ticks = { stroke: line, width: 1, size: 4 };
    const time = (this.chart.own || state.axis) === "time", seconds = this.chart.unit === "s";
    const axisX = { stroke: ink, font, grid: { show: false }, ticks, size: 26, gap: 4, space: 70, incrs: time ? TIMES : COUNTS };
    axisX.values = (u, at) => at.map((x) => (time ? round(x) : this.chart.own === "bytes" ? measure(x, "B") : shown(x)));
    if (this.chart.own === "bytes") axisX.space = 90;
    const axisY = { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { show: false }, size: gutter, gap: 6, space: 34 };
    axisY.values = (u, at) => at.map((y) => (y === null ? "" : seconds ? round(y) : measure(y, this.chart.unit)));
    if (seconds) axisY.incrs = TIMES;
    if (made.whole) axisY.incrs = COUNTS;
    if (made.middles) Object.assign(axisY, { grid: { show: false }, splits: () => made.middles, values: (u, at) => at.map((y) => y - 0.5) });
    return {
      width: Math.max(120, this.width),
      height: this.chart.height,
      padding: [8, EDGE, 0, 0],
      legend: { show: false },
      scales: { x: { time: false, auto: false, min: this.range[0], max: this.range[1] }, y: { distr: made.y.distr || 1, range: made.y.range } },
      axes: [axisX, axisY],
      series: made.series,
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false },
        points: { size: 7, show: this.chart.kind !== "lanes" && this.chart.kind !== "stack" },
        sync: { key: this.chart.own ? "apart" : "page", scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave" || type === "mouseenter" } },
        bind: { dblclick: () => () => { zoom(...full()); return null; } },
      },
      hooks: {
        init: [(u) => { u.apart = Boolean(this.chart.own); }],
        drawClear: [(u) => made.draw && made.draw(u)],
        draw: [drawMarks, (u) => { this.figure.dataset.shown = u.scales.x.min + " " + u.scales.x.max; }],
        setCursor: [() => this.pointed()],
        setSelect: [(u) => { if (u.select.width > 4 && !this.chart.own) { zoom(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")); } u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false); }],
      },
    };
  }

  /* The value of a series at a place, or of the nearest point that it has. */
  value(at, i) {
    const values = this.made.raw ? this.made.raw[i] : this.u.data[i], xs = this.u.data[0];
    if (this.made.held) { while (at > 0 && xs[at] > this.u.posToVal(this.u.cursor.left, "x")) at--; return values[at]; }
    for (let off = 0; off < 400; off++) {
      if (values[at - off] !== null && values[at - off] !== undefined) return values[at - off];
      if (values[at + off] !== null && values[at + off] !== undefined) return values[at + off];
    }
    return null;
  }

  keys() {
    const keys = this.made.keys;
    this.keysBox.replaceChildren();
    if (keys.length < 2 && !keys.some((key) => key.fixed)) return;
    for (const key of keys) {
      const stroke = element("canvas", { width: "32", height: "20", "aria-hidden": "true" }), pen = stroke.getContext("2d");
      pen.strokeStyle = pen.fillStyle = key.stroke;
      pen.lineWidth = 5;
      pen.setLineDash(key.dash.map((n) => 1.6 * n));
      if (key.block) pen.fillRect(4, 0, 20, 20);
      else { pen.beginPath(); pen.moveTo(0, 10); pen.lineTo(32, 10); pen.stroke(); }
      key.told = element("b");
      const on = !this.off.has(key.number);
      const made = element(key.fixed ? "span" : "button", key.fixed ? { class: "key" } : { type: "button", "aria-pressed": String(on) }, stroke, key.label, key.told);
      if (!key.fixed) made.addEventListener("click", (event) => this.toggle(key, event.shiftKey || event.altKey));
      this.keysBox.append(made);
    }
  }

  /* A series on or off; with Shift all others off, or on again. */
  toggle(key, alone) {
    const all = this.made.keys.map((one) => one.number);
    if (alone) this.off = this.off.size === all.length - 1 && !this.off.has(key.number) ? new Set() : new Set(all.filter((n) => n !== key.number));
    else if (this.off.has(key.number)) this.off.delete(key.number);
    else this.off.add(key.number);
    if (this.chart.kind === "stack") this.chart.off = this.off;
    const at = this.made.keys.indexOf(key);
    this.build();
    this.keysBox.children[at].focus();
  }

  pointed() {
    const u = this.u, at = u && u.cursor.idx;
    const inside = u && u.cursor.left >= 0 && at !== null && at !== undefined;
    for (const key of this.made.keys) if (key.told && !key.quiet && key.own.length) key.told.textContent = inside ? measure(this.value(at, key.value), this.chart.unit) : "";
    if (!inside || Plot.hovered !== this) { this.tip.hidden = true; return; }
    this.tell(at);
  }

  tell(at) {
    const u = this.u, x = u.posToVal(u.cursor.left, "x"), held = this.made.held || this.chart.kind === "lanes";
    const head = element("div", { class: "at" }, this.apart(x) || where(held ? x : u.data[0][at]));
    const rows = this.chart.kind === "lanes" ? this.laneRow(x) : this.made.keys.filter((key) => !this.off.has(key.number) && !key.quiet).slice(0, 14).map((key) => {
      const dot = element("i");
      dot.style.background = key.stroke;
      return element("div", { class: "row" }, element("span", {}, dot, key.label), element("b", {}, measure(this.value(at, key.value), this.chart.unit)));
    });
    const near = state.marks && !this.chart.own ? marksIn(u.posToVal(u.cursor.left - 6, "x"), u.posToVal(u.cursor.left + 6, "x")).slice(0, 4) : [];
    const said = near.map((mark) => element("div", { class: "said" }, sign(mark.kind) + " " + mark.words));
    this.tip.replaceChildren(head, ...rows, ...said);
    this.tip.hidden = false;
    const left = u.over.offsetLeft + u.cursor.left, wide = this.tip.offsetWidth, room = this.box.clientWidth;
    this.tip.style.left = (left + 14 + wide > room ? Math.max(0, left - 14 - wide) : left + 14) + "px";
    this.tip.style.top = "10px";
  }

  /* Where the pointer is, of a chart that runs over an axis of its own; nothing of others. */
  apart(x) {
    return { time: lasting(x), bytes: measure(x, "B"), step: "step " + shown(Math.round(x)) }[this.chart.own] || "";
  }

  laneRow(x) {
    const { xs } = this.made, lane = Math.floor(this.u.posToVal(Math.max(0, this.u.cursor.top), "y"));
    let i = xs.length - 1;
    while (i > 0 && xs[i] > x) i--;
    const by = this.chart.carried[i][Math.min(this.chart.lanes - 1, Math.max(0, lane))];
    return [element("div", { class: "row" }, element("span", {}, "lane " + lane), element("b", {}, by < 0 ? "nobody" : this.chart.members[by]))];
  }

  listen() {
    const over = (event) => { if (event.pointerType !== "touch" || event.type !== "pointerleave") Plot.hovered = event.type === "pointerleave" ? null : this; };
    this.box.addEventListener("pointerenter", over);
    this.box.addEventListener("pointerleave", over);
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("blur", () => { this.tip.hidden = true; });
    this.touch();
    new ResizeObserver(() => { if (this.u && !state.printing && Math.abs(this.box.clientWidth - this.width) > 1) { this.width = this.box.clientWidth; this.u.setSize({ width: Math.max(120, this.width), height: this.chart.height }); } }).observe(this.box);
  }

  key(event) {
    const u = this.u, [low, high] = seen(), wide = high - low;
    if (!u) return;
    const left = u.cursor.left >= 0 ? u.cursor.left : u.over.clientWidth / 2, x = u.posToVal(left, "x");
    const step = u.over.clientWidth / (event.shiftKey ? 20 : 200);
    const to = (place) => { Plot.hovered = this; u.setCursor({ left: Math.min(u.over.clientWidth, Math.max(0, place)), top: 10 }); };
    if (event.key === "ArrowLeft") to(left - step);
    else if (event.key === "ArrowRight") to(left + step);
    else if (event.key === "+" || event.key === "=") zoom(x - wide / 4, x + wide / 4);
    else if (event.key === "-") zoom(x - wide, x + wide);
    else if (event.key === "0" || event.key === "Escape") zoom(...full());
    else return;
    event.preventDefault();
  }

  /* Two fingers zoom; one shows what is beneath it. */
  touch() {
    let apart = 0;
    const at = (event) => Array.from(event.touches, (touch) => touch.clientX - this.u.over.getBoundingClientRect().left);
    this.box.addEventListener("touchmove", (event) => {
      if (!this.u) return;
      const xs = at(event);
      Plot.hovered = this;
      if (xs.length === 1) { this.u.setCursor({ left: xs[0], top: 10 }); return; }
      event.preventDefault();
      const now = Math.abs(xs[0] - xs[1]) || 1, [low, high] = seen();
      if (apart) {
        const middle = this.u.posToVal((xs[0] + xs[1]) / 2, "x"), factor = apart / now;
        zoom(middle - (middle - low) * factor, middle + (high - middle) * factor);
      }
      apart = now;
    }, { passive: false });
    this.box.addEventListener("touchend", () => { apart = 0; });
  }
}
Plot.hovered = null;
