/* What the reader does: axis, switches, light and dark, print, copy; and charts that are built when they come into sight. */
const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;

function dress() {
  const night = !state.printing && (chosen === null ? dark.matches : chosen === "dark");
  root.classList.toggle("dark", night);
  for (const button of many("[data-do=theme]")) button.textContent = night ? "Light" : "Dark";
}

function rebuild() {
  for (const plot of plots) if (plot.u) plot.build();
  moved();
}

function over(axis) {
  if (axis === "time" && !clock) return;
  const middle = state.range;
  if (middle && clock && axis !== state.axis) {
    const [from, to] = axis === "time" ? [clock.step, clock.seconds] : [clock.seconds, clock.step];
    state.range = [between(from, to, middle[0]), between(from, to, middle[1])];
  }
  state.axis = axis;
  for (const button of many("[data-axis]")) button.setAttribute("aria-pressed", String(button.dataset.axis === axis));
  rebuild();
}

async function copy(button) {
  const text = button.parentElement.querySelector("pre").textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(button.parentElement.querySelector("pre"));
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.axis) over(button.dataset.axis);
  if (button.dataset.switch) {
    state[button.dataset.switch] = !state[button.dataset.switch];
    button.setAttribute("aria-pressed", String(state[button.dataset.switch]));
    rebuild();
  }
  if (button.dataset.do === "reset") zoom(...full());
  if (button.dataset.do === "theme") { chosen = root.classList.contains("dark") ? "light" : "dark"; dress(); rebuild(); }
  if (button.dataset.do === "copy") copy(button);
});
dark.addEventListener("change", () => { dress(); rebuild(); });

/* On paper everything is light, and drawn, whether it was in sight or not. */
function paper(on) {
  if (state.printing === on) return;
  state.printing = on;
  dress();
  for (const plot of plots) plot.build();
  moved();
}
const print = matchMedia("print");
print.addEventListener("change", () => paper(print.matches));
addEventListener("beforeprint", () => paper(true));
addEventListener("afterprint", () => paper(false));

dress();
const described = new Map((drawn.plots || []).map((chart) => [String(chart.id), chart]));
const inSight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    inSight.unobserve(entry.target);
    const plot = plots.find((one) => one.figure === entry.target);
    if (!plot.u) plot.build();
  }
}, { rootMargin: "600px" });
for (const figure of many("[data-plot]")) {
  const chart = described.get(figure.dataset.plot);
  if (!chart) continue;
  figure.querySelector(".canvas").style.minHeight = chart.height + "px";
  plots.push(new Plot(figure, chart));
  inSight.observe(figure);
}
/* Those out of sight when there is nothing else to do, for who prints, searches or keeps a picture of the page. */
const whenIdle = window.requestIdleCallback || ((work) => setTimeout(work, 50));
function buildRest() {
  const next = plots.find((plot) => !plot.u);
  if (!next) {
    root.dataset.drawn = "yes";
    return;
  }
  next.build();
  whenIdle(buildRest);
}
whenIdle(buildRest);
addEventListener("resize", moved);
const links = new Map(many("nav .links a").map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) for (const [name, link] of links) link.classList.toggle("here", name === entry.target.id);
}, { rootMargin: "-80px 0px -70% 0px" });
many("main section").forEach((section) => reading.observe(section));
moved();
root.dataset.ready = "yes";
