// The list of attempts: as many as there are, of which only those in sight are elements.

import { h, oneLine } from "./dom.js";
import { groupOf, runs } from "./model.js";
import { open, state } from "./state.js";

const HEIGHTS = { step: 30, group: 28, attempt: 26 };
const BEYOND = 400; // pixels above and below that are drawn too
export const SIGNS = { solved: "✓", failed: "✕", aside: "–" };
export const OUTCOMES = { solved: "solved", failed: "failed", aside: "set aside" };

const box = document.getElementById("list");
const sheet = box.firstElementChild;
let rows = []; // {kind, key, top, ...}
let entries = [];
const drawn = new Map();

box.addEventListener("scroll", draw, { passive: true });
new ResizeObserver(draw).observe(box);
box.addEventListener("click", (event) => {
  const element = event.target.closest(".row.attempt");
  if (element) openEntry(entries[+element.dataset.at]);
});

/** Show these attempts instead; what stands at the top of the window stays there. */
export function showList(attempts) {
  const anchor = rows[firstAt(box.scrollTop)];
  const above = anchor ? box.scrollTop - anchor.top : 0;
  entries = attempts;
  rows = laidOut(attempts);
  for (const element of drawn.values()) element.remove();
  drawn.clear();
  sheet.style.height = `${rows.length ? rows.at(-1).top + HEIGHTS[rows.at(-1).kind] : 0}px`;
  const again = anchor && rows.find((row) => row.key === anchor.key);
  if (again) box.scrollTop = again.top + above;
  draw();
}

/** Another attempt is open. Whether it was scrolled to. */
export function showOpen({ scrolls = true } = {}) {
  for (const element of drawn.values()) select(element, entries[+element.dataset.at]);
  const row = scrolls && rows.find((one) => one.entry && isOpen(one.entry));
  if (!row) return false;
  if (row.top - 60 < box.scrollTop) box.scrollTop = row.top - 90;
  else if (row.top + 60 > box.scrollTop + box.clientHeight) box.scrollTop = row.top - box.clientHeight + 120;
  draw();
  return true;
}

/** The next attempt of the list, or the one before. */
export function moveOpen(by) {
  const at = entries.findIndex(isOpen);
  const next = entries[at < 0 ? 0 : Math.min(Math.max(at + by, 0), entries.length - 1)];
  if (next) openEntry(next);
}

function openEntry({ run, step, row }) {
  open({ run, step, row });
}

function laidOut(attempts) {
  const made = [];
  let top = 0;
  let before = {};
  const add = (row) => {
    made.push({ ...row, top });
    top += HEIGHTS[row.kind];
  };
  attempts.forEach((entry, at) => {
    if (entry.step !== before.step) add({ kind: "step", key: `s${entry.step}`, step: entry.step, run: entry.run });
    if (entry.step !== before.step || entry.group !== before.group) {
      add({ kind: "group", key: `g${entry.step}.${entry.group}`, of: entry });
    }
    add({ kind: "attempt", key: `a${entry.step}.${entry.row}`, entry, at });
    before = entry;
  });
  return made;
}

/** The row at a height: they are sorted. */
function firstAt(height) {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].top + HEIGHTS[rows[middle].kind] > height) high = middle;
    else low = middle + 1;
  }
  return low;
}

function draw() {
  const first = firstAt(box.scrollTop - BEYOND);
  const last = firstAt(box.scrollTop + box.clientHeight + BEYOND);
  const wanted = new Set();
  for (const row of rows.slice(first, last + 1)) {
    wanted.add(row.key);
    if (drawn.has(row.key)) continue;
    const element = KINDS[row.kind](row);
    element.style.top = `${row.top}px`;
    drawn.set(row.key, element);
    sheet.append(element);
  }
  for (const [key, element] of drawn) {
    if (wanted.has(key)) continue;
    element.remove();
    drawn.delete(key);
  }
}

const KINDS = {
  step({ step, run }) {
    const attempts = runs[run].attempts.get(step) ?? [];
    const judged = attempts.filter((entry) => entry.outcome !== "aside");
    const solved = judged.filter((entry) => entry.outcome === "solved").length;
    const success = judged.length ? `${Math.round((100 * solved) / judged.length)}% solved` : "";
    return h("div", { className: "row step" }, `Step ${step}`, h("small", {}, `${success} · ${attempts.length} attempts`));
  },
  group({ of }) {
    const attempts = groupOf(runs[of.run], of.step, of.group);
    const solved = attempts.filter((entry) => entry.outcome === "solved").length;
    const title = oneLine(of.task);
    return h("div", { className: "row group", title }, h("span", {}, title), h("small", {}, `${solved}/${attempts.length}`));
  },
  attempt({ entry, at }) {
    const spark = h("span", { className: "spark" });
    if (entry.hasCredit) spark.append(h("i", { className: "more-7" }), h("i", { className: "less-7" }));
    spark.title = entry.hasCredit ? "Its tokens were recorded" : "";
    const element = h(
      "div",
      { className: "row attempt", id: `attempt-${at}`, data: { at }, attributes: { role: "option" } },
      h("span", { className: `sign ${entry.outcome}`, title: OUTCOMES[entry.outcome] }, SIGNS[entry.outcome]),
      h("span", { className: "place" }, entry.place === null ? "" : String(entry.place)),
      h("span", { className: "gist" }, oneLine(entry.gist)),
      h("span", { className: "length", title: "Tokens" }, entry.length === null ? "" : String(entry.length)),
      spark,
    );
    select(element, entry);
    return element;
  },
};

const isOpen = (entry) =>
  state.open !== null && entry.run === state.open.run && entry.step === state.open.step && entry.row === state.open.row;

function select(element, entry) {
  if (!entry) return;
  element.setAttribute("aria-selected", String(isOpen(entry)));
  if (isOpen(entry)) box.setAttribute("aria-activedescendant", element.id);
}
