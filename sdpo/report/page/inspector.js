// What do student and teacher say of one token? Its credit in words, and the most probable tokens of both.

import { h, number, share, signed, tokenText } from "./dom.js";
import { shade } from "./tokens.js";

const SAME = 1e-3; // nats: the recorded log-probabilities are rounded

/** The element for a token of a credit record. */
export function inspected({ credit, credits }, place) {
  const [student, teacher] = [credit.student[place], credit.teacher[place]];
  const owned = student !== null && teacher !== null;
  return h(
    "div",
    { className: "inspector", attributes: { "aria-live": "polite" } },
    owned ? said(credit, credits, place) : theirs(credit, place),
    tops("Student, without hindsight", "student-bar", credit.student_top[place], credit, place, student),
    tops("Teacher, with hindsight", "teacher-bar", credit.teacher_top[place], credit, place, teacher),
  );
}

function said(credit, credits, place) {
  const value = credits[place];
  const factor = Math.exp(Math.abs(value));
  const times = factor >= 10 ? factor.toFixed(0) : factor.toFixed(1);
  const words = Math.abs(value) < 0.1 ? "as probable in hindsight" : `${times.length > 6 ? "far" : `${times}×`} ${value > 0 ? "more" : "less"} probable in hindsight`;
  return h(
    "div",
    {},
    h("span", { className: `glyph ${shade(value)}` }, tokenText(credit.tokens[place])),
    h("div", { className: "verdict-line" }, h("b", {}, signed(value)), h("span", {}, `nats, ${words}`)),
    h("p", {}, "student ", h("b", {}, share(credit.student[place])), " → teacher ", h("b", {}, share(credit.teacher[place]))),
    h("p", {}, "divergence ", h("b", {}, credit.divergence[place] === null ? "unknown" : number(credit.divergence[place], 3)), ` nats · token ${place + 1} of ${credit.tokens.length}`),
  );
}

function theirs(credit, place) {
  return h(
    "div",
    {},
    h("span", { className: "glyph" }, tokenText(credit.tokens[place])),
    h("p", {}, `Token ${place + 1} of ${credit.tokens.length}. The environment wrote it, so nothing is learned from it.`),
  );
}

function tops(title, bar, top, credit, place, logprob) {
  const heading = h("h3", {}, h("i", { className: bar }), title);
  if (!top?.length) return h("div", {}, heading, h("p", {}, "Nothing was recorded here."));
  const isSampled = ([id, value]) => credit.pieces[id] === credit.tokens[place] && logprob !== null && Math.abs(value - logprob) < SAME;
  const rows = top.map((pair) => row(credit.pieces[pair[0]] ?? `#${pair[0]}`, pair[1], bar, isSampled(pair)));
  if (logprob !== null && !top.some(isSampled)) rows.push(row(credit.tokens[place], logprob, bar, true));
  return h("div", {}, heading, h("ol", { className: "top-list" }, ...rows));
}

function row(piece, logprob, bar, isSampled) {
  const filled = h("i", { className: bar });
  filled.style.width = `${Math.min(100, 100 * Math.exp(logprob))}%`;
  return h(
    "li",
    { className: isSampled ? "is-sampled" : "", title: isSampled ? "The sampled token" : "" },
    h("span", { className: "piece" }, tokenText(piece)),
    h("span", { className: "bar" }, filled),
    h("span", { className: "share" }, share(logprob)),
  );
}
