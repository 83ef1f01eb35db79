// How did the runs go? Their curves over each other, what differs in their settings, alarms, and what is missing.

import { chart } from "./chart.js";
import { h, number, oneLine } from "./dom.js";
import { runs } from "./model.js";
import { change } from "./state.js";

const percent = (value) => `${+(100 * value).toFixed(1)}%`;
const nats = (value) => number(value, Math.abs(value) < 10 ? 2 : 1).replace(/^−?0\.00$/, "0");
const whole = (value) => (Math.abs(value) >= 10000 ? `${+(value / 1000).toFixed(0)}k` : String(Math.round(value)));
const CHARTS = [
  { title: "Success", unit: "of the attempts", key: "success", show: percent, range: [0, 1] },
  { title: "Held-out success", unit: "avg@k ± standard error", key: "heldout/success", error: "heldout/success_se", from: "evaluations", show: percent, range: [0, 1] },
  { title: "Hindsight", unit: "attempts with a hint", key: "hindsight", show: percent, range: [0, 1] },
  { title: "Divergence", unit: "student to teacher, nats a token", key: "divergence", show: nats },
  { title: "Hindsight credit", unit: "nats: failed; pale: solved", key: "credit/failed", second: "credit/solved", show: nats },
  { title: "Response length", unit: "tokens", key: "response_tokens", show: whole },
];

/** The whole pane. */
export function overview() {
  const names = runs.map((run) => run.name).join(" and ");
  return h(
    "div",
    { className: "overview" },
    h("h1", {}, oneLine(names)),
    h("div", { className: "charts" }, ...CHARTS.map(drawn)),
    h("div", { className: "panels" }, ...[differences(), alarms(), missing()].filter(Boolean)),
  );
}

function drawn({ key, second, error, from = "metrics", ...rest }) {
  const points = (run, name) =>
    run[from].filter((record) => name in record).map((record) => [record.step, record[name], record[error] ?? 0]);
  const curves = runs.flatMap((run) => [
    ...(second ? [{ run: "ab"[run.number], points: points(run, second), isSecond: true }] : []),
    { run: "ab"[run.number], points: points(run, key) },
  ]);
  const onStep = (step) => step > 0 && change({ view: "attempts", step, run: runs[0].steps.includes(step) ? 0 : 1 }, { goes: true });
  return chart({ ...rest, curves, onStep: from === "metrics" ? onStep : null });
}

function differences() {
  if (runs.length < 2) return null;
  const [one, other] = runs.map((run) => flat(run.config));
  const keys = [...new Set([...one.keys(), ...other.keys()])].filter((key) => one.get(key) !== other.get(key) && key !== "name");
  const rows = keys.map((key) => h("tr", {}, h("td", {}, oneLine(key)), ...[one, other].map((config) => h("td", {}, oneLine(config.get(key) ?? "–", 300)))));
  const heads = ["", ...runs.map((run) => h("span", { className: `badge ${"ab"[run.number]}` }, "AB"[run.number]))];
  const table = h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", {}, head)))), h("tbody", {}, ...rows));
  return h("section", { className: "panel" }, h("h2", {}, "Settings that differ"), keys.length ? h("div", { className: "settings" }, table) : h("p", {}, "None."));
}

function flat(config, prefix = "", found = new Map()) {
  for (const [key, value] of Object.entries(config)) {
    if (value && typeof value === "object" && !Array.isArray(value)) flat(value, `${prefix}${key}.`, found);
    else found.set(prefix + key, typeof value === "string" ? value : JSON.stringify(value));
  }
  return found;
}

function alarms() {
  const raised = runs.flatMap((run) => run.alarms.map((alarm) => [run, alarm]));
  if (!raised.length) return null;
  return panel("Alarms", raised.map(([run, alarm]) => item(run, `step ${alarm.step}`, alarm.sentence)));
}

function missing() {
  const said = runs.flatMap((run) => run.missing.map((sentence) => [run, sentence]));
  if (!said.length) return null;
  return panel("What is missing", said.map(([run, sentence]) => item(run, "", sentence)));
}

function panel(title, items) {
  return h("section", { className: "panel" }, h("h2", {}, title), h("ul", {}, ...items));
}

function item(run, label, sentence) {
  const badge = runs.length > 1 && h("span", { className: `badge ${"ab"[run.number]}` }, "AB"[run.number]);
  return h("li", {}, badge, label && h("b", {}, label), h("span", {}, oneLine(sentence, 2000)));
}
