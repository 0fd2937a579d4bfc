/* The ribbon: a sign for each thing that happened, over the charts' axis; near ones together. */
const ribbons = many(".ribbon");
const NEAR = 15;

function layRibbon(ribbon) {
  const [low, high] = seen(), wide = ribbon.clientWidth;
  ribbon.replaceChildren();
  if (!state.marks || !(high > low)) return;
  const groups = [];
  for (const mark of marksIn(low, high)) {
    const x = (wide * (place(mark.step, mark.seconds) - low)) / (high - low), last = groups[groups.length - 1];
    if (last && x - last.x < NEAR) last.marks.push(mark);
    else groups.push({ x, marks: [mark] });
  }
  const rank = Object.keys(KINDS);
  const weight = (mark) => (rank.includes(mark.kind) ? rank.indexOf(mark.kind) : rank.length);
  for (const group of groups) {
    const chief = group.marks.reduce((a, b) => (weight(b) < weight(a) ? b : a));
    const told = group.marks.slice(0, 6).map((mark) => where(place(mark.step, mark.seconds)) + ": " + mark.words).join("\n") + (group.marks.length > 6 ? "\nand " + (group.marks.length - 6) + " more" : "");
    const made = element("button", { type: "button", title: told, "aria-label": told }, element("i", { class: "sign " + chief.kind, "aria-hidden": "true" }, sign(chief.kind)));
    if (group.marks.length > 1) made.append(element("small", {}, String(group.marks.length)));
    made.style.left = group.x + "px";
    made.addEventListener("click", () => { const x = place(chief.step, chief.seconds), near = (high - low) / 8; zoom(x - near, x + near); });
    ribbon.append(made);
  }
}

/* What hangs on where the charts stand. */
function moved() {
  ribbons.forEach(layRibbon);
  for (const button of many("[data-do=reset]")) button.disabled = !state.range;
}
