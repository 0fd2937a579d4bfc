/* Kinds of charts: of a description, what uPlot is told and what is drawn besides. */

function ordered(xs, values) {
  let rising = true;
  for (let i = 1; i < xs.length && rising; i++) rising = xs[i] > xs[i - 1];
  if (rising) return [xs, values];
  const pairs = xs.map((x, i) => [x, values[i]]).sort((a, b) => a[0] - b[0]);
  const one = pairs.filter((pair, i) => i === pairs.length - 1 || pairs[i + 1][0] !== pair[0]);
  return [one.map((pair) => pair[0]), one.map((pair) => pair[1])];
}

/* A mean that moves along, over about a fortieth of the curve, looking both ways so that it lags behind nothing; the same
   for any spacing of the points. */
function smoothed(xs, values) {
  const width = (xs[xs.length - 1] - xs[0]) / 100 || 1;
  const there = leaking(xs, values, width, xs.map((_, i) => i)), back = leaking(xs, values, width, xs.map((_, i) => xs.length - 1 - i));
  return values.map((value, i) => (value === null ? null : (there[0][i] + back[0][i] - value) / (there[1][i] + back[1][i] - 1)));
}

/* Sums of values, and of their weights, that fade with the distance. */
function leaking(xs, values, width, order) {
  const sums = new Array(xs.length), weights = new Array(xs.length);
  let sum = 0, weight = 0, last = null;
  for (const i of order) {
    const keep = last === null ? 0 : Math.exp(-Math.abs(xs[i] - last) / width);
    sum *= keep;
    weight *= keep;
    last = xs[i];
    if (values[i] !== null) { sum += values[i]; weight += 1; }
    sums[i] = sum;
    weights[i] = weight;
  }
  return [sums, weights];
}

function unpackedSeries(one) {
  if (one.ready) return one.ready;
  one.ready = { step: unpacked(one.step), seconds: unpacked(one.seconds), value: unpacked(one.value) };
  return one.ready;
}

function overX(one) {
  const { step, seconds, value } = unpackedSeries(one);
  return ordered(value.map((_, i) => place(step && step[i], seconds && seconds[i])), value);
}

const alpha = (hex, share) => hex + Math.round(255 * share).toString(16).padStart(2, "0");

function lines(chart) {
  const tables = [], series = [{}], keys = [], others = [];
  chart.series.forEach((one, number) => {
    const [xs, values] = overX(one);
    if (!xs.length) return;
    const stroke = colour(one.colour), dash = [[], [7, 4], [2, 3], [9, 3, 2, 3]][Math.floor(one.colour / 8) % 4];
    const smooth = one.smooth && state.smooth, pale = smooth || one.quiet;
    const own = [series.length], paths = chart.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined;
    tables.push([xs, values]);
    series.push({ label: one.label, stroke: pale ? alpha(stroke, one.quiet ? 0.4 : 0.28) : stroke, width: pale ? 1 : 2, dash, paths, spanGaps: true, points: { show: xs.length < 40 && !one.quiet && !chart.stepped, size: 5 } });
    if (smooth) {
      own.push(series.length);
      tables.push([xs, smoothed(xs, values)]);
      series.push({ label: one.label, stroke, width: 2, dash, spanGaps: true, points: { show: false } });
    }
    if (one.quiet) others.push(...own);
    else keys.unshift({ label: one.label, stroke, dash, own, value: own[0], number });
  });
  if (!chart.backwards) keys.reverse();
  if (others.length) keys.push({ label: others.length + " others", stroke: colour(6), dash: [], own: others, number: -1, quiet: true });
  const data = tables.length ? uPlot.join(tables) : [[]];
  const log = chart.log && state.log;
  const range = chart.zero && !log ? (u, low, high) => [0, high > 0 ? high * 1.08 : 1] : undefined;
  return { data, series, keys, y: { distr: log ? 3 : 1, range } };
}

function steps(chart) {
  const [xs, values] = overX(chart.series[0]);
  const end = chart.own ? xs[xs.length - 1] : Math.max(full()[1], xs[xs.length - 1]);
  if (end > xs[xs.length - 1]) { xs.push(end); values.push(values[values.length - 1]); }
  const stroke = colour(chart.series[0].colour);
  const line = { label: chart.series[0].label, stroke, width: 2, fill: alpha(stroke, 0.12), paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } };
  const keys = [{ label: chart.series[0].label, stroke, dash: [], own: [1], value: 1, number: 0 }];
  const top = Math.max(...values.filter((value) => value !== null), 1);
  return { data: [xs, values], series: [{}, line], keys, y: { range: [0, Math.ceil(top * 1.15 + 0.2)] }, whole: true, held: true };
}

function stack(chart) {
  const seconds = unpacked(chart.at), off = chart.off || (chart.off = new Set());
  const xs = seconds.map((at) => place(null, at));
  const sums = xs.map(() => 0), series = [{}], data = [xs], keys = [], raw = [null];
  chart.series.forEach((one, number) => {
    const values = unpacked(one.value), hidden = off.has(number);
    const tops = values.map((value, i) => (sums[i] += hidden ? 0 : value || 0));
    const tint = css("--" + one.label) || css("--another");
    series.push({ label: one.label, stroke: tint, width: 1, fill: tint, show: !hidden, points: { show: false } });
    data.push(tops);
    raw.push(values);
    keys.push({ label: one.label, stroke: tint, dash: [], own: [series.length - 1], value: series.length - 1, number, block: true });
  });
  // Drawn from the greatest sum down, so that each lies on the one beneath it.
  const back = [0, ...series.slice(1).map((_, i) => i + 1).reverse()];
  const turned = new Map(back.map((from, to) => [from, to]));
  keys.forEach((key) => { key.own = key.own.map((at) => turned.get(at)); key.value = turned.get(key.value); });
  return { data: back.map((i) => data[i]), series: back.map((i) => series[i]), keys, y: { range: (u, low, high) => [0, high * 1.05 || 1] }, raw: back.map((i) => raw[i]) };
}

function lanes(chart) {
  const xs = chart.step.map((step, i) => place(step, chart.seconds[i]));
  const end = Math.max(full()[1], xs[xs.length - 1]);
  const draw = (u) => laneRects(u, chart, [...xs, end]);
  const keys = chart.members.map((label, number) => ({ label, stroke: colour(number), dash: [], own: [], number, fixed: true, block: true }));
  const data = [[xs[0], end], [0, chart.lanes]];
  const line = { show: true, stroke: "transparent", points: { show: false } };
  const every = Math.ceil(chart.lanes / Math.max(1, Math.floor((chart.height - 34) / 18)));
  const middles = Array.from({ length: Math.ceil(chart.lanes / every) }, (_, i) => i * every + 0.5);
  return { data, series: [{}, line], keys: keys.length <= 16 ? keys : [], y: { range: [0, chart.lanes] }, draw, middles, xs };
}

function laneRects(u, chart, edges) {
  const { ctx } = u, ratio = devicePixelRatio || 1, { left, top, width, height } = u.bbox;
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
  ctx.font = 11 * ratio + "px " + getComputedStyle(document.body).fontFamily;
  ctx.textBaseline = "middle";
  const row = height / chart.lanes, gap = Math.min(2 * ratio, row / 6);
  chart.carried.forEach((by, i) => {
    const from = u.valToPos(edges[i], "x", true), to = u.valToPos(edges[i + 1], "x", true);
    if (to < left || from > left + width || to <= from) return;
    for (let lane = 0; lane < by.length; ) {
      let next = lane + 1;
      while (next < by.length && by[next] === by[lane]) next++;
      if (by[lane] >= 0) {
        const y = top + height - next * row;
        ctx.fillStyle = alpha(colour(by[lane]), 0.8);
        ctx.fillRect(from + 0.5 * ratio, y + gap / 2, Math.max(ratio, to - from - ratio), (next - lane) * row - gap);
        const name = chart.members[by[lane]], room = Math.min(to, left + width) - Math.max(from, left);
        if (room > ctx.measureText(name).width + 14 * ratio && (next - lane) * row > 13 * ratio) {
          ctx.fillStyle = root.classList.contains("dark") && !state.printing ? "#0b0e12" : "#fff";
          ctx.fillText(name, Math.max(from, left) + 7 * ratio, y + ((next - lane) * row) / 2);
        }
      }
      lane = next;
    }
  });
  ctx.restore();
}

const makers = { lines, steps, stack, lanes };
