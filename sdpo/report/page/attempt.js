// One attempt: prompt, response, verdict, hindsight prompt.

import { h, number, oneLine, visible } from "./dom.js";
import { attemptsAt, entryAt, groupOf, runs } from "./model.js";
import { OUTCOMES, SIGNS } from "./list.js";
import { TokenText, legend } from "./tokens.js";

const MOST_CHARACTERS = 20000; // of a text before the rest is asked for
const FOLDS_AT = 9; // lines of a prompt

/** The view of an attempt. `handlers`: `onHover` and `onChoose` of its tokens, `onOpen(entry)` for another attempt. */
export class AttemptView {
  constructor(place, record, handlers) {
    this.place = place;
    this.record = record;
    this.text = record.credit && new TokenText(record.credit, handlers);
    this.element = h("article", { className: "attempt-view" }, this.#head(handlers.onOpen), ...this.#parts());
  }

  #head(onOpen) {
    const { record, place } = this;
    const run = runs[place.run];
    const outcome = record.set_aside !== null ? "aside" : record.is_solved ? "solved" : "failed";
    const fact = (name, value) => value !== null && value !== undefined && value !== "" && h("span", {}, `${name} `, h("b", {}, value));
    return h(
      "header",
      {},
      h(
        "div",
        { className: "crumbs" },
        runs.length > 1 && h("span", { className: `badge ${"ab"[place.run]}` }, "AB"[place.run]),
        h("span", {}, run.name), h("i", {}, "/"), this.#step(onOpen), h("i", {}, "/"),
        h("span", {}, record.attempt === null ? "set aside" : `attempt ${record.attempt}`),
        this.#siblings(onOpen),
      ),
      h("h1", {}, oneLine(record.task)),
      h(
        "div",
        { className: "facts" },
        h("span", { className: `outcome ${outcome}` }, `${SIGNS[outcome]} ${OUTCOMES[outcome]}`),
        fact("reward", record.reward === null ? null : number(record.reward)),
        fact("tokens", record.num_tokens),
        fact("ended by", record.finish),
        fact("weights of step", record.weights_version),
        fact("hindsight", record.hint && (record.is_remembered ? `${record.hint}, remembered` : record.hint)),
        fact("update", record.credit?.update),
      ),
    );
  }

  /** The step; of the run beside, a choice among those that tried this task. */
  #step(onOpen) {
    const { place, record } = this;
    if (!place.isBeside) return h("span", {}, `step ${place.step}`);
    const attempts = attemptsAt(runs[place.run], record.task);
    const steps = [...new Set(attempts.map((entry) => entry.step))];
    const options = steps.map((step) => h("option", { value: String(step), selected: step === place.step }, `step ${step}`));
    const first = (step) => attempts.filter((entry) => entry.step === step).sort((one, two) => two.hasCredit - one.hasCredit)[0];
    return h("select", { attributes: { "aria-label": "Step" }, on: { change: (event) => onOpen(first(+event.target.value)) } }, ...options);
  }

  /** The attempts of its group. */
  #siblings(onOpen) {
    const others = groupOf(runs[this.place.run], this.place.step, entryAt(this.place)?.group);
    const buttons = others.map((entry) =>
      h(
        "button",
        {
          type: "button",
          title: `Step ${entry.step}, attempt ${entry.place ?? "set aside"}: ${OUTCOMES[entry.outcome]}${entry.hasCredit ? ", tokens recorded" : ""}`,
          attributes: { "aria-current": String(entry.step === this.place.step && entry.row === this.place.row) },
          on: { click: () => onOpen(entry) },
        },
        h("b", { className: entry.outcome }, SIGNS[entry.outcome]),
        h("span", {}, ` ${entry.place ?? ""}${entry.hasCredit ? "•" : ""}`),
      ),
    );
    return h("nav", { className: "siblings", attributes: { "aria-label": "Attempts at the same task" } }, ...buttons.slice(0, 64));
  }

  #parts() {
    const { record } = this;
    return [
      part("Prompt", [], record.credit ? prose(record.credit.prompt) : prose(record.question)),
      this.#response(),
      part("Verdict", [], verdict(record)),
      this.#hindsight(),
    ];
  }

  #response() {
    const { record } = this;
    if (this.text) return part("Response", [legend()], this.text.element);
    const shown = record.turns.length
      ? h("div", {}, ...record.turns.map(([role, content]) => h("div", {}, h("div", { className: "note" }, role), prose(content))))
      : prose(record.completion || "(empty)");
    shown.prepend(h("div", { className: "note" }, `No credit record: ${this.#why()}`));
    return part("Response", [], shown);
  }

  #why() {
    const run = runs[this.place.run];
    const share = run.config.tracking?.credit_share;
    if (!run.steps.some((step) => run.attempts.get(step).some((entry) => entry.hasCredit))) return "the run holds none.";
    if (this.record.set_aside !== null) return "the attempt was set aside.";
    if (!this.record.hint) return "the attempt had no hint, so nothing was distilled.";
    return `tokens are kept of a share of the attempts${typeof share === "number" ? ` (tracking.credit_share=${share})` : ""}, and this one was not drawn.`;
  }

  #hindsight() {
    const { record } = this;
    if (record.credit) {
      const found = new Set(record.credit.hindsight_parts.map(([kind]) => kind).filter(Boolean));
      const keys = [...found].map((kind) => h("small", {}, h("i", { className: `swatch ${kind}` }), kind));
      return part("Hindsight prompt", keys, marked(record.credit.hindsight_parts));
    }
    if (!record.hint) return part("Hindsight", [], h("div", { className: "nothing" }, "No hint: neither a solved sibling nor feedback to learn from."));
    const hint = [];
    if (record.demonstration) hint.push(["demonstration", record.demonstration]);
    if (record.feedback && /both|feedback/.test(record.hint)) hint.push(["feedback", record.feedback]);
    hint.push(...Object.entries(record.shown ?? {}));
    return part("Hint", hint.map(([kind]) => h("small", {}, h("i", { className: `swatch ${kind}` }), kind)), marked(hint, "\n\n"));
  }
}

function part(title, beside, ...content) {
  const body = content[0].classList.contains("card") ? content[0] : h("div", { className: "card" }, ...content);
  return h("section", { className: "part" }, h("header", {}, h("h2", {}, title), ...beside), body);
}

function verdict(record) {
  const kind = record.set_aside !== null ? "" : record.is_solved ? " is-solved" : "";
  if (record.set_aside !== null) {
    return h("div", { className: `feedback-card${kind}` }, h("div", { className: "note" }, "The environment broke, so the attempt is neither failed nor rewarded."), prose(record.set_aside));
  }
  const reward = `Reward ${record.reward === null ? "unknown" : number(record.reward)}${record.feedback ? "" : ", no feedback"}.`;
  return h("div", { className: `feedback-card${kind}` }, h("div", { className: "note" }, reward), record.feedback && prose(record.feedback));
}

/** Text as it is, its end on demand. */
function prose(text) {
  return folded(h("pre", { className: "prose" }), [[null, text]]);
}

/** Pieces of text, some of them marked as a kind. */
function marked(parts, between = "") {
  return folded(h("pre", { className: "prose" }), parts, between);
}

function folded(pre, parts, between = "") {
  let left = MOST_CHARACTERS;
  let hidden = 0;
  parts.forEach(([kind, text], place) => {
    const shown = visible(text.slice(0, Math.max(0, left)));
    hidden += Math.max(0, text.length - Math.max(0, left));
    left -= text.length;
    if (place && between) pre.append(between);
    if (kind === null) pre.append(...said(shown));
    else if (shown) pre.append(h("mark", { className: kind === "demonstration" ? "demonstration" : "feedback", title: kind }, shown));
  });
  const body = h("div", {}, pre);
  if (hidden) {
    const more = h("button", { type: "button", className: "unfold" }, `Show the other ${hidden.toLocaleString("en")} characters`);
    more.addEventListener("click", () => body.replaceWith(whole(parts, between)));
    body.append(more);
  } else if (pre.textContent.split("\n").length > FOLDS_AT && parts.every(([kind]) => kind === null)) {
    body.classList.add("is-folded");
    const more = h("button", { type: "button", className: "unfold" }, "Show everything");
    more.addEventListener("click", () => {
      body.classList.remove("is-folded");
      more.remove();
    });
    body.append(more);
  }
  return body;
}

function whole(parts, between) {
  const pre = h("pre", { className: "prose" });
  parts.forEach(([kind, text], place) => {
    if (place && between) pre.append(between);
    pre.append(kind === null ? visible(text) : h("mark", { className: kind === "demonstration" ? "demonstration" : "feedback" }, visible(text)));
  });
  return h("div", {}, pre);
}

/** The chat template's own words a little paler. */
function said(text) {
  return text.split(/(<\|[a-z_]+\|>)/).map((piece, place) => (place % 2 ? h("span", { className: "said" }, piece) : piece));
}
