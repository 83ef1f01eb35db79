// A response, token by token, coloured by hindsight credit: log q(y_t) - log π(y_t), in nats. Above 0, the teacher, who knows
// what the environment said, finds the token more probable than the policy did.

import { h, number, oneLine, signed, visible } from "./dom.js";

/** Where one shade ends and the next begins, in nats. */
export const BOUNDS = [0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5];
const TICKS = [-5, -2, -0.5, 0.5, 2, 5];
const STRONG = 3; // shade from which white space is shown in full
const MOST_CHARACTERS = 2000; // of one token

/** The class of a credit's shade: more-1 to more-8, less-1 to less-8, or "" where there is next to none. */
export function shade(credit) {
  const level = credit === null ? 0 : BOUNDS.filter((bound) => Math.abs(credit) >= bound).length;
  return level ? `${credit > 0 ? "more" : "less"}-${level}` : "";
}

/** [R] in nats; null where the token is not the policy's own. */
export const creditsOf = ({ student, teacher }) =>
  student.map((logprob, place) => (logprob === null || teacher[place] === null ? null : teacher[place] - logprob));

/** What the shades mean. */
export function legend() {
  const levels = BOUNDS.map((_, level) => level + 1);
  const shades = [...levels.map((level) => `less-${level}`).reverse(), "none", ...levels.map((level) => `more-${level}`)];
  const edges = [...BOUNDS.map((bound) => -bound).reverse(), ...BOUNDS];
  const ticks = TICKS.map((tick) => {
    const label = h("span", {}, signed(tick, Number.isInteger(tick) ? 0 : 1));
    label.style.left = `${(100 * (edges.indexOf(tick) + 1)) / shades.length}%`;
    return label;
  });
  return h(
    "div",
    { className: "legend", attributes: { role: "img", "aria-label": "Hindsight credit in nats, from orange, less probable in hindsight, to blue, more probable" } },
    h("div", { className: "ends" }, h("span", {}, "less probable"), h("span", {}, "credit, nats"), h("span", {}, "more probable")),
    h("div", { className: "ramp" }, ...shades.map((name) => h("i", { className: name }))),
    h("div", { className: "ticks" }, ...ticks),
  );
}

/** The tokens of a credit record as lines of text. */
export class TokenText {
  /** `onHover(place or null)` under the pointer; `onChoose(place)` clicked, or come to with the keyboard. */
  constructor(credit, { onHover, onChoose }) {
    this.credit = credit;
    this.credits = creditsOf(credit);
    this.chosen = null;
    this.parts = credit.tokens.map(() => []);
    this.element = h("div", { className: "tokens card", attributes: { role: "listbox", "aria-label": "Response tokens" } });
    this.element.append(...this.#lines());
    this.element.addEventListener("pointerover", (event) => onHover(placeOf(event.target)));
    this.element.addEventListener("pointerleave", () => onHover(null));
    const choose = (event) => placeOf(event.target) !== null && onChoose(placeOf(event.target));
    this.element.addEventListener("click", choose);
    this.element.addEventListener("focusin", choose);
    this.#reachable(0);
  }

  get length() {
    return this.credit.tokens.length;
  }

  /** Mark a token; `focuses` also moves the keyboard there, and so the window. */
  choose(place, { focuses = false } = {}) {
    for (const part of this.parts[this.chosen] ?? []) part.classList.remove("is-chosen");
    this.chosen = place;
    for (const part of this.parts[place] ?? []) part.classList.add("is-chosen");
    if (place === null) return;
    this.#reachable(place);
    if (focuses) this.parts[place][0]?.focus({ preventScroll: true });
    this.parts[place][0]?.scrollIntoView({ block: "nearest" });
  }

  /** The next token, in a direction, that hindsight changed by a nat or more. */
  nextChanged(from, by) {
    for (let place = from + by; place >= 0 && place < this.length; place += by) {
      if (this.credits[place] !== null && Math.abs(this.credits[place]) >= 1) return place;
    }
    return from;
  }

  /** The token with the most credit, either way. */
  mostChanged() {
    let most = 0;
    this.credits.forEach((credit, place) => {
      if (Math.abs(credit ?? 0) > Math.abs(this.credits[most] ?? 0)) most = place;
    });
    return most;
  }

  /** One token can be come to with Tab; h and l lead on from there. */
  #reachable(place) {
    this.element.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
    const part = this.parts[place]?.[0];
    if (!part) return;
    const credit = this.credits[place];
    part.setAttribute("tabindex", "0");
    part.setAttribute("role", "option");
    part.setAttribute(
      "aria-label",
      `token ${place + 1}, ${oneLine(this.credit.tokens[place], 60)}, ${credit === null ? "not the policy's" : `credit ${number(credit)} nats`}`,
    );
  }

  #lines() {
    const lines = [h("div", { className: "line" })];
    this.credit.tokens.forEach((token, place) => {
      const cut = token.length > MOST_CHARACTERS ? `${token.slice(0, MOST_CHARACTERS)}… +${token.length - MOST_CHARACTERS} characters` : token;
      const rows = cut.split("\n");
      rows.forEach((text, row) => {
        const ends = row < rows.length - 1;
        if (text || ends || rows.length === 1) lines.at(-1).append(this.#part(place, text, ends));
        if (ends) lines.push(h("div", { className: "line" }));
      });
    });
    return lines;
  }

  #part(place, text, ends) {
    const credit = this.credits[place];
    const name = shade(credit);
    const part = h("span", { className: `t ${name}`, data: { at: place } }, visible(text));
    if (ends) part.append(h("span", { className: "end", attributes: { "aria-hidden": "true" } }, "↵"));
    if (+name.slice(-1) >= STRONG) part.classList.add("is-strong");
    if (credit === null) part.classList.add("is-theirs");
    if (/^<\|.*\|>$/.test(text)) part.classList.add("is-special");
    if (/^[ \t]+$/.test(text)) {
      part.classList.add("is-space");
      part.dataset.seen = text.replaceAll(" ", "·").replaceAll("\t", "⇥   ");
    }
    this.parts[place].push(part);
    return part;
  }
}

function placeOf(target) {
  const part = target.closest?.("[data-at]");
  return part ? +part.dataset.at : null;
}
