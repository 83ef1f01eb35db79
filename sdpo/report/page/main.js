// The page: what a change of the state, or news of a run, redraws.

import { h, oneLine } from "./dom.js";
import { clearFilters, numFilters, searched, showFilters } from "./filters.js";
import { listen } from "./keys.js";
import { moveOpen, showList, showOpen } from "./list.js";
import { filtered, follow, onNews, runs } from "./model.js";
import { overview } from "./overview.js";
import { hideDock, known, markAgain, moveToken, showOpened, showToken } from "./reading.js";
import { FILTERS, change, onChange, state } from "./state.js";

const main = document.getElementById("main");
const count = document.getElementById("count");
let found = null; // of a search
let seen = ""; // of the attempts that are shown, as they were drawn
let searching = 0;
let isPlaced = false; // the list has come to the attempt that a link opened

onChange((changed) => {
  if (changed.has("view")) showView();
  else if (changed.has("open") || changed.has("beside")) showReading();
  else if (changed.has("token")) showToken();
  if (FILTERS.some((key) => changed.has(key))) void refilter(changed.has("words") || changed.has("run"));
  if (changed.has("words")) markAgain();
  if (changed.has("open")) showOpen();
});

onNews((run, isNew) => {
  showRuns();
  if (!isNew) return;
  if (run.number === state.run) void refilter(Boolean(state.words));
  if (state.view === "overview") showView({ keepsPlace: true });
  else if (state.open && known() !== seen) showReading();
  else if (!state.open) showView();
});

for (const button of document.querySelectorAll("[data-view]")) {
  button.addEventListener("click", () => change({ view: button.dataset.view }, { goes: true }));
}
document.getElementById("theme").addEventListener("click", window.switchTheme);
const nextStep = (by) => {
  const { steps } = runs[state.run];
  const at = steps.indexOf(state.step);
  const next = at < 0 ? (by > 0 ? 0 : steps.length - 1) : at + by;
  if (steps.length) change({ step: steps[next] ?? null });
};
listen({
  j: () => moveOpen(1),
  k: () => moveOpen(-1),
  l: () => moveToken(1),
  h: () => moveToken(-1),
  ArrowRight: () => moveToken(1),
  ArrowLeft: () => moveToken(-1),
  n: () => moveToken(1, { toChanged: true }),
  p: () => moveToken(-1, { toChanged: true }),
  "]": () => nextStep(1),
  "[": () => nextStep(-1),
  "/": () => document.getElementById("words").focus(),
  o: () => change({ view: state.view === "overview" ? "attempts" : "overview" }, { goes: true }),
  c: () => change({ credit: !state.credit }),
  x: clearFilters,
  t: window.switchTheme,
});
setInterval(showRuns, 5000); // "12 s ago" grows old
await follow();
if (state.run >= runs.length) change({ run: 0 });
showView();

function showView({ keepsPlace = false } = {}) {
  const isOverview = state.view === "overview";
  document.body.classList.toggle("is-overview", isOverview);
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === state.view));
  document.title = `${runs.map((run) => run.name).join(" · ")} · sdpo view`;
  if (!isOverview) return showReading();
  const place = main.scrollTop;
  hideDock();
  main.replaceChildren(overview());
  main.scrollTop = keepsPlace ? place : 0;
}

function showReading() {
  if (state.view === "overview") return;
  seen = known();
  if (state.open && state.open.run < runs.length) return void showOpened();
  hideDock();
  main.replaceChildren(landing());
}

async function refilter(searchesAnew) {
  const mine = ++searching;
  showFilters();
  if (searchesAnew || !state.words) {
    const rows = await searched().catch(() => new Map());
    if (mine !== searching) return;
    found = rows;
  }
  const attempts = filtered(runs[state.run], found);
  showList(attempts);
  isPlaced = showOpen({ scrolls: !isPlaced }) || isPlaced || state.open === null;
  const clear = numFilters() > 0 && h("button", { type: "button", on: { click: clearFilters } }, "no filters");
  const reading = runs[state.run].hasMore ? "  reading…" : "";
  count.replaceChildren(`${attempts.length.toLocaleString("en")} ${attempts.length === 1 ? "attempt" : "attempts"}${reading}`, ...(clear ? [clear] : []));
}

function showRuns() {
  document.getElementById("runs").replaceChildren(
    ...runs.map((run) =>
      h(
        "div",
        { className: "run", title: run.path ?? "" },
        runs.length > 1 && h("span", { className: `badge ${"ab"[run.number]}` }, "AB"[run.number]),
        h("b", {}, oneLine(run.name)),
        h("small", {}, standing(run)),
        run.missing.length > 0 &&
          h("button", { type: "button", className: "missing", title: run.missing.join("\n"), on: { click: () => change({ view: "overview" }, { goes: true }) } }, h("small", {}, `${run.missing.length} missing`)),
      ),
    ),
  );
}

function standing(run) {
  if (run.isLost) return "the server does not answer";
  const last = run.metrics.at(-1)?.step ?? run.steps.at(-1);
  const steps = last === undefined ? "no step yet" : run.numSteps ? `step ${last} of ${run.numSteps}` : `step ${last}`;
  return run.written ? `${steps} · ${ago(Date.now() / 1000 - run.written)}` : steps;
}

function ago(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`;
}

function landing() {
  const missing = runs.flatMap((run) => run.missing.map((sentence) => h("li", {}, `${runs.length > 1 ? `${run.name}: ` : ""}${sentence}`)));
  return h(
    "div",
    { className: "landing" },
    h("h1", {}, "Which tokens did hindsight change?"),
    h("p", {}, "Open an attempt: each token of its answer is coloured by what the model thinks of it once it knows what the environment said. Attempts whose tokens were recorded carry a blue and orange mark."),
    h("p", {}, h("kbd", {}, "j"), " ", h("kbd", {}, "k"), " go through the attempts, ", h("kbd", {}, "l"), " ", h("kbd", {}, "h"), " through the tokens, ", h("kbd", {}, "?"), " shows all keys."),
    missing.length > 0 && h("h2", {}, "What is missing"),
    missing.length > 0 && h("ul", {}, ...missing),
  );
}
