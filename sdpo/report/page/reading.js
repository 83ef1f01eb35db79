// The attempt that is open, the one beside it, and the dock with a token of either.

import { h } from "./dom.js";
import { AttemptView } from "./attempt.js";
import { markFound } from "./found.js";
import { inspected } from "./inspector.js";
import { ask, attemptsAt, entryAt, runs } from "./model.js";
import { change, open, state } from "./state.js";
import { Strip } from "./strip.js";

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const main = document.getElementById("main");
const dock = document.getElementById("dock");
const strip = new Strip({ onHover: (place) => hover(active, place), onChoose: (place) => place !== null && choose(active, place) });
const shown = h("div");
dock.append(strip.element, shown);

let views = []; // the open one, the one beside
let active = null; // whose tokens the dock shows
let before = null; // the attempt that was open
let asked = 0; // answers may come out of order
let kept = { of: null, place: null }; // what was put beside an attempt stays there when the other run goes on

/** What is known of the attempts that are to be shown: where it has changed, they are shown anew. */
export function known() {
  return JSON.stringify(places().map((place) => entryAt(place) ?? null));
}

/** Show what the state says is open. */
export async function showOpened() {
  const mine = ++asked;
  const wanted = places();
  const records = await Promise.all(wanted.map((place) => ask("attempt", place).catch(() => null)));
  if (mine !== asked) return;
  views = wanted.flatMap((place, at) => (records[at] ? [new AttemptView({ ...place, isBeside: at === 1 }, records[at], handlers(at))] : []));
  if (!records[0]) return main.replaceChildren(h("div", { className: "landing" }, h("h1", {}, "This attempt is not there (any more)."))), hideDock();
  const isAtToken = Boolean(document.activeElement?.closest(".tokens")); // the keyboard stays where it was, in what is drawn anew
  const beside = runs.length > 1 && views.length < 2 ? h("article", { className: "attempt-view" }, absent()) : null;
  main.replaceChildren(h("div", { className: `reading${runs.length > 1 ? " is-beside" : ""}` }, ...views.map((view) => view.element), ...(beside ? [beside] : [])));
  if (!same(before, state.open)) main.scrollTop = 0;
  before = state.open;
  markFound(main, state.words);
  activate(views.find((view) => view.text) ?? null);
  showToken({ focuses: isAtToken });
}

/** Show the token that the state says is chosen; without one, the token with the most credit is looked at, not chosen. */
export function showToken({ focuses = false } = {}) {
  const [view] = views;
  if (!view?.text) return;
  const place = state.token !== null && state.token < view.text.length ? state.token : null;
  view.text.choose(place, { focuses });
  if (place !== null) activate(view);
  hover(active, null);
}

/** Move the choice along the tokens: by one, or to the next that hindsight changed. */
export function moveToken(by, { toChanged = false } = {}) {
  const text = active?.text;
  if (!text) return;
  const from = text.chosen ?? (toChanged ? -1 : by > 0 ? -1 : text.length);
  const to = toChanged ? text.nextChanged(from, by) : Math.min(Math.max(from + by, 0), text.length - 1);
  if (to >= 0) choose(active, to, { focuses: true });
}

/** Forget what is shown: another view is on. */
export function hideDock() {
  dock.hidden = true;
  before = null;
  views = [];
  active = null;
}

export function markAgain() {
  markFound(main, state.words);
}

const places = () => (state.open ? [state.open, runs.length > 1 ? counterpart() : null].filter(Boolean) : []);

/** The other run's attempt at the same task: the one chosen, or else of the nearest step, with a record if there is one. */
function counterpart() {
  const own = entryAt(state.open);
  const other = runs[1 - state.open.run];
  if (state.beside?.run === other.number && entryAt(state.beside)) return state.beside;
  if (!own) return null;
  if (same(kept.of, state.open) && entryAt(kept.place)?.task === own.task) return kept.place;
  const distance = (entry) => 4 * Math.abs(entry.step - own.step) + 2 * !entry.hasCredit + (entry.place !== own.place);
  const [best] = attemptsAt(other, own.task).sort((one, two) => distance(one) - distance(two));
  if (!best) return null;
  const place = { run: best.run, step: best.step, row: best.row };
  if (!other.hasMore) kept = { of: state.open, place };
  return place;
}

function absent() {
  const other = runs[1 - state.open.run];
  return h("div", { className: "landing" }, h("h1", {}, "No attempt at this task"), h("p", {}, `${other.name} holds none${other.hasMore ? " so far; it is still being read" : ""}.`));
}

function handlers(at) {
  return {
    onHover: (place) => hover(views[at], place),
    onChoose: (place) => choose(views[at], place),
    onOpen: ({ run, step, row }) => (at ? change({ beside: { run, step, row } }, { goes: true }) : open({ run, step, row })),
  };
}

function choose(view, place, { focuses = false } = {}) {
  if (!view?.text || view.text.chosen === place) return;
  view.text.choose(place, { focuses });
  activate(view);
  hover(view, null);
  if (view === views[0]) change({ token: place });
}

function activate(view) {
  dock.hidden = !view?.text;
  if (active === view) return;
  active = view;
  if (view?.text) strip.show(view.text, runs[view.place.run].config);
}

/** Show a token in the dock; null for the chosen one, or the one that changed most. */
function hover(view, place) {
  if (!view?.text) return;
  activate(view);
  const at = place ?? view.text.chosen ?? view.text.mostChanged();
  if (view.text.length) shown.replaceChildren(inspected(view.text, at));
  strip.mark(at);
}
