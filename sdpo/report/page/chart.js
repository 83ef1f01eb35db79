// The curves of one number, of one run or two.

import { h, svg } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [420, 190, 40, 12, 8, 22];

/** `curves`: {run: "a" or "b", name, points: [[step, value, error]], isSecond}. `ask`: what else there is to say, `onStep`: clicked. */
export function chart({ title, unit, curves, show, range = null, onStep }) {
  const now = curves.filter((curve) => curve.points.length && !curve.isSecond);
  const values = h("div", { className: "now" }, ...now.map((curve) => h("span", { className: curve.run }, show(curve.points.at(-1)[1]))));
  const small = h("small", {}, unit);
  const head = h("header", {}, h("h2", {}, title), small, values);
  const drawn = curves.filter((curve) => curve.points.length);
  if (!drawn.length) return h("section", { className: "chart" }, head, h("div", { className: "empty" }, "Not recorded."));
  const scale = scaled(drawn, range);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  picture.append(...axes(scale, show), ...drawn.flatMap((curve) => strokes(curve, scale)));
  const here = svg("line", { class: "here", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  picture.append(here);
  const stepAt = (event) => {
    const box = picture.getBoundingClientRect();
    return nearest(drawn, scale.step(((event.clientX - box.left) / box.width) * WIDTH));
  };
  picture.addEventListener("pointermove", (event) => {
    const step = stepAt(event);
    const x = scale.x(step);
    for (const end of ["x1", "x2"]) here.setAttribute(end, x);
    here.setAttribute("visibility", "visible");
    const at = now.map((curve) => [curve, curve.points.find((point) => point[0] === step)]);
    values.replaceChildren(...at.map(([curve, point]) => h("span", { className: curve.run }, point ? show(point[1]) : "–")));
    small.textContent = `step ${step}`;
  });
  picture.addEventListener("pointerleave", () => {
    here.setAttribute("visibility", "hidden");
    values.replaceChildren(...now.map((curve) => h("span", { className: curve.run }, show(curve.points.at(-1)[1]))));
    small.textContent = unit;
  });
  if (onStep) picture.addEventListener("click", (event) => onStep(stepAt(event)));
  return h("section", { className: "chart" }, head, picture);
}

function scaled(curves, range) {
  const points = curves.flatMap((curve) => curve.points);
  const steps = points.map(([step]) => step);
  const [first, last] = [Math.min(...steps), Math.max(...steps)];
  const ends = points.flatMap(([, value, error = 0]) => [value - error, value + error]);
  let [low, high] = range ?? [Math.min(0, ...ends), Math.max(...ends)];
  if (high <= low) high = low + 1;
  if (!range) [low, high] = [low < 0 ? low - (high - low) * 0.06 : low, high + (high - low) * 0.06];
  const across = WIDTH - LEFT - RIGHT;
  return {
    first, last, low, high,
    x: (step) => LEFT + (last > first ? (step - first) / (last - first) : 0.5) * across,
    y: (value) => HEIGHT - BOTTOM - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (HEIGHT - TOP - BOTTOM),
    step: (x) => first + ((x - LEFT) / across) * (last - first),
  };
}

function axes(scale, show) {
  const lines = ticks(scale.low, scale.high, 4).flatMap((value) => [
    svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: scale.y(value), y2: scale.y(value) }),
    svg("text", { x: LEFT - 7, y: scale.y(value) + 3.5, "text-anchor": "end" }, show(value)),
  ]);
  const whole = ticks(scale.first, scale.last, 6).filter(Number.isInteger);
  return [...lines, ...whole.map((step) => svg("text", { x: scale.x(step), y: HEIGHT - 6, "text-anchor": "middle" }, String(step)))];
}

function strokes({ run, points, isSecond = false }, scale) {
  const kind = isSecond ? `${run} is-second` : run;
  const errors = points
    .filter(([, , error]) => error)
    .map(([step, value, error]) => svg("line", { class: `error ${run}`, x1: scale.x(step), x2: scale.x(step), y1: scale.y(value - error), y2: scale.y(value + error) }));
  const line = svg("polyline", { class: kind, points: points.map(([step, value]) => `${scale.x(step)},${scale.y(value)}`).join(" ") });
  const dots = points.length <= 30 ? points.map(([step, value]) => svg("circle", { class: kind, cx: scale.x(step), cy: scale.y(value), r: 2.8 })) : [];
  return [...errors, line, ...dots];
}

function nearest(curves, step) {
  const steps = curves.flatMap((curve) => curve.points.map(([known]) => known));
  return steps.reduce((best, known) => (Math.abs(known - step) < Math.abs(best - step) ? known : best));
}

/** Round numbers in a range. */
function ticks(low, high, about) {
  const span = high - low || 1;
  const unit = 10 ** Math.floor(Math.log10(span / about));
  const step = unit * [1, 2, 5, 10].find((factor) => span / (unit * factor) <= about * 1.3);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, place) => +((first + place) * step).toFixed(10));
}
