// What is known of the runs: their attempts without texts, their curves. Asked for again and again while a run goes on; only
// what is new comes over.

import { state } from "./state.js";

const COLUMNS = ["row", "group", "place", "task", "outcome", "reward", "length", "hint", "gist", "hasCredit"];
const WAIT_MS = 2000;

export const runs = [];
const listeners = [];

/** Calls back with a run after something new came of it. */
export function onNews(listener) {
  listeners.push(listener);
}

/** Finds out which runs there are, and follows each. */
export async function follow() {
  for (const [number, name] of (await ask("runs")).entries()) {
    runs.push({
      number, name, revision: 0, steps: [], attempts: new Map(), metrics: [], evaluations: [], alarms: [],
      missing: [], config: {}, numSteps: null, written: null, hasMore: true, isLost: false,
    });
  }
  for (const run of runs) void keepUp(run);
}

/** JSON from the server. */
export async function ask(path, words = {}) {
  const answer = await fetch(`${path}?${new URLSearchParams(words)}`);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

export const entryAt = (place) => runs[place.run]?.attempts.get(place.step)?.[place.row];

/** The attempts at one task in one step. */
export const groupOf = (run, step, group) => (run.attempts.get(step) ?? []).filter((entry) => entry.group === group);

/** Attempts at a task in a whole run, in order. */
export function attemptsAt(run, task) {
  return run.steps.flatMap((step) => run.attempts.get(step).filter((entry) => entry.task === task));
}

/** The environment and the family of a task: `chemistry/rings/easy/…` is rings of chemistry, `code/add-3` add of code. */
export function familyOf(task) {
  const [environment, second = "", third] = task.split("/");
  const name = third === undefined ? second.split("-")[0] : second;
  return [environment, /^[0-9a-f]{8,}$/.test(name) ? "" : name];
}

/** The listed run's attempts that pass the filters. `found`: rows by step of a search, or null. */
export function filtered(run, found) {
  const passes = (entry) =>
    (!state.outcome || entry.outcome === state.outcome) &&
    (!state.environment || entry.environment === state.environment) &&
    (!state.family || entry.family === state.family) &&
    (state.least === null || (entry.length ?? -1) >= state.least) &&
    (state.most === null || (entry.length ?? Infinity) <= state.most) &&
    (!state.credit || entry.hasCredit) &&
    (!found || found.get(entry.step)?.has(entry.row));
  const steps = run.steps.filter((step) => state.step === null || step === state.step);
  return steps.flatMap((step) => run.attempts.get(step).filter(passes));
}

async function keepUp(run) {
  for (;;) {
    if (document.hidden && run.revision) await new Promise((seen) => addEventListener("visibilitychange", seen, { once: true }));
    try {
      take(run, await ask("changes", { run: run.number, since: run.revision }));
    } catch {
      if (!run.isLost) tell(Object.assign(run, { isLost: true }));
    }
    if (!run.hasMore || run.isLost) await new Promise((later) => setTimeout(later, WAIT_MS));
  }
}

function take(run, news) {
  const isNew = news.revision !== run.revision || run.isLost || news.has_more !== run.hasMore;
  Object.assign(run, {
    revision: news.revision, steps: news.steps, alarms: news.alarms, missing: news.missing, numSteps: news.num_steps,
    written: news.written, hasMore: news.has_more, isLost: false, path: news.path,
  });
  if (news.config) run.config = news.config;
  if (news.metrics) run.metrics = news.metrics;
  if (news.evaluations) run.evaluations = news.evaluations;
  for (const { step, attempts } of news.changed) run.attempts.set(step, attempts.map((columns) => entry(run, step, columns)));
  for (const step of run.attempts.keys()) if (!news.steps.includes(step)) run.attempts.delete(step);
  run.steps = run.steps.filter((step) => run.attempts.has(step));
  tell(run, isNew);
}

function entry(run, step, columns) {
  const made = { run: run.number, step };
  COLUMNS.forEach((name, place) => (made[name] = columns[place]));
  [made.environment, made.family] = familyOf(made.task);
  return made;
}

function tell(run, isNew = true) {
  for (const listener of listeners) listener(run, isNew);
}
