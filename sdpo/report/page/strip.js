// The divergence of every token as a strip: where in a response student and teacher differ.

import { h, number } from "./dom.js";
import { BOUNDS, shade } from "./tokens.js";

const KINDS = { reverse_kl: "KL(student ‖ teacher)", forward_kl: "KL(teacher ‖ student)", jsd: "Jensen–Shannon" };
const WIDEST = 14; // pixels of a bar

export class Strip {
  /** `onHover` and `onChoose` as those of the tokens. */
  constructor({ onHover, onChoose }) {
    this.marked = null;
    this.canvas = h("canvas", { attributes: { role: "img", "aria-label": "Divergence of each token" } });
    this.labels = h("header");
    this.pointer = h("i", { className: "pointer", hidden: true });
    this.element = h("div", { className: "strip" }, this.labels, h("div", { className: "bars" }, this.canvas, this.pointer));
    this.canvas.addEventListener("pointermove", (event) => onHover(this.#placeAt(event)));
    this.canvas.addEventListener("pointerleave", () => onHover(null));
    this.canvas.addEventListener("click", (event) => onChoose(this.#placeAt(event)));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    const recolour = () => {
      this.colours = null;
      this.draw();
    };
    addEventListener("theme", recolour);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  }

  /** Show an attempt's tokens. */
  show(text, config) {
    this.text = text;
    this.kind = KINDS[config.algorithm?.divergence] ?? "";
    this.draw();
  }

  /** Mark a token. */
  mark(place) {
    this.marked = place;
    this.#point();
  }

  draw() {
    if (!this.text || !this.canvas.clientWidth) return;
    const { credit, credits } = this.text;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const scale = devicePixelRatio || 1;
    this.canvas.width = width * scale;
    this.canvas.height = height * scale;
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const known = credit.divergence.filter((value) => value !== null);
    const most = Math.max(1e-9, ...reduced(known));
    this.colours ??= shades();
    const each = this.#each();
    const columns = each >= 1 ? null : new Map(); // more tokens than pixels: of each column the most
    credit.divergence.forEach((value, place) => {
      const tall = value === null ? 0 : Math.max(1, (value / most) * (height - 4));
      const left = Math.floor(place * each);
      if (columns && tall <= (columns.get(left) ?? 0)) return;
      columns?.set(left, tall);
      pen.fillStyle = this.colours[shade(credits[place]) || "none"];
      pen.fillRect(left, height - tall, Math.max(1, Math.floor(each) - (each >= 3 ? 1 : 0)), tall);
    });
    this.#point();
    this.labels.replaceChildren(
      h("span", {}, h("b", {}, "Divergence"), ` per token${this.kind && `, ${this.kind}`}`),
      h("span", {}, `${credit.tokens.length} tokens · mean ${number(known.length ? sum(known) / known.length : 0, 3)} · highest ${number(known.length ? most : 0)} nats`),
    );
  }

  #point() {
    this.pointer.hidden = !this.text || this.marked === null;
    if (this.pointer.hidden) return;
    this.pointer.style.left = `${Math.floor(this.marked * this.#each()) - 1}px`;
    this.pointer.style.width = `${Math.max(1, Math.floor(this.#each()) - 1) + 2}px`;
  }

  #each() {
    return Math.min(WIDEST, this.canvas.clientWidth / this.text.length);
  }

  #placeAt(event) {
    const place = Math.floor(event.offsetX / this.#each());
    return this.text && place >= 0 && place < this.text.length ? place : null;
  }
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
/** In pieces that fit a call's arguments. */
const reduced = (values) => [values.reduce((most, value) => Math.max(most, value), 0)];

/** What the shades' classes look like at present: a canvas knows no style sheet. */
function shades() {
  const probe = document.body.appendChild(h("i", { hidden: true }));
  const names = ["none", ...BOUNDS.flatMap((_, level) => [`more-${level + 1}`, `less-${level + 1}`])];
  const colours = {};
  for (const name of names) {
    probe.className = name;
    colours[name] = getComputedStyle(probe).backgroundColor;
  }
  probe.remove();
  return colours;
}
