// Which attempts are listed? The reader's choice, as controls; and the steps as columns of success.

import { h } from "./dom.js";
import { ask, runs } from "./model.js";
import { FILTERS, change, state } from "./state.js";
import { OUTCOMES, SIGNS } from "./list.js";

const SEARCH_WAIT_MS = 180;
const panel = document.getElementById("filters");
const words = document.getElementById("words");
let waiting = 0;

/** The controls, drawn anew; cheap enough for every change. */
export function showFilters() {
  const run = runs[state.run];
  if (panel.contains(document.activeElement) && document.activeElement.matches("input")) return; // not under the reader's hands
  panel.replaceChildren(...[runs.length > 1 && whose(), steps(run), outcomes(), kinds(run), lengths()].filter(Boolean));
  if (document.activeElement !== words) words.value = state.words;
}

/** What a search finds in the listed run: rows by step; null where nothing is searched for. */
export async function searched() {
  if (!state.words) return null;
  const found = await ask("search", { run: state.run, words: state.words });
  return new Map(Object.entries(found).map(([step, rows]) => [+step, new Set(rows)]));
}

/** How many filters are set, the run's choice not counted. */
export const numFilters = () =>
  FILTERS.filter((key) => key !== "run" && state[key] !== null && state[key] !== "" && state[key] !== false).length;

export function clearFilters() {
  words.value = "";
  change({ step: null, outcome: "", environment: "", family: "", least: null, most: null, credit: false, words: "" });
}

words.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => change({ words: words.value }), SEARCH_WAIT_MS);
});

function chip(text, isPressed, press, title = "") {
  return h("button", { type: "button", className: "chip", title, attributes: { "aria-pressed": isPressed }, on: { click: press } }, ...text);
}

function whose() {
  return h(
    "div",
    { className: "chips", attributes: { role: "group", "aria-label": "Run" } },
    ...runs.map((run) => chip([`${"AB"[run.number]}  ${run.name}`], state.run === run.number, () => change({ run: run.number, step: null }))),
  );
}

function steps(run) {
  const columns = run.steps.map((step) => {
    const judged = run.attempts.get(step).filter((entry) => entry.outcome !== "aside");
    const success = judged.filter((entry) => entry.outcome === "solved").length / (judged.length || 1);
    const bar = h("i");
    bar.style.height = `${Math.max(2, 100 * success)}%`;
    return h(
      "button",
      {
        type: "button",
        title: `Step ${step}: ${Math.round(100 * success)}% solved`,
        attributes: { "aria-pressed": state.step === step, "aria-label": `Step ${step}` },
        on: { click: () => change({ step: state.step === step ? null : step }) },
      },
      bar,
    );
  });
  const ends = run.steps.length ? [`step ${run.steps[0]}`, state.step === null ? "success" : `step ${state.step} only`, String(run.steps.at(-1))] : [];
  return h(
    "div",
    {},
    h("div", { className: "steps", attributes: { role: "group", "aria-label": "Steps" } }, ...columns),
    h("div", { className: "legend-steps" }, ...ends.map((end) => h("span", {}, end))),
  );
}

function outcomes() {
  const chips = Object.entries(OUTCOMES).map(([outcome, name]) =>
    chip([h("span", { className: outcome }, `${SIGNS[outcome]} `), name], state.outcome === outcome, () =>
      change({ outcome: state.outcome === outcome ? "" : outcome }),
    ),
  );
  chips.push(chip(["credit"], state.credit, () => change({ credit: !state.credit }), "Only attempts whose tokens were recorded"));
  return h("div", { className: "chips", attributes: { role: "group", "aria-label": "Outcome" } }, ...chips);
}

function kinds(run) {
  const environments = new Set();
  const families = new Set();
  for (const step of run.steps) {
    for (const entry of run.attempts.get(step)) {
      environments.add(entry.environment);
      if (entry.family && (!state.environment || entry.environment === state.environment)) families.add(entry.family);
    }
  }
  return h(
    "div",
    { className: "across" },
    select("environment", "all environments", environments, { family: "" }),
    select("family", "all families", families),
  );
}

function select(key, everything, names, also = {}) {
  const options = [...names].sort().map((name) => h("option", { value: name, selected: state[key] === name }, name));
  return h(
    "select",
    { id: key, attributes: { "aria-label": key }, on: { change: (event) => change({ [key]: event.target.value, ...also }) } },
    h("option", { value: "" }, everything),
    ...options,
  );
}

function lengths() {
  const bound = (key, placeholder) =>
    h("input", {
      id: key, type: "number", min: "0", placeholder, value: state[key] ?? "",
      attributes: { "aria-label": `${placeholder} length` },
      on: { change: (event) => change({ [key]: /^\d{1,9}$/.test(event.target.value) ? +event.target.value : null }) },
    });
  return h("div", { className: "across" }, bound("least", "from"), bound("most", "to"), h("span", { className: "unit" }, "tokens long"));
}
