// The keyboard.

import { h } from "./dom.js";

const dialog = document.getElementById("keys");
const KEYS = [
  [["j", "k"], "next attempt, the one before"],
  [["l", "h"], "next token, the one before (also → ←)"],
  [["n", "p"], "next token that hindsight changed by a nat or more, the one before"],
  [["]", "["], "only the next step, the one before"],
  [["/"], "search"],
  [["o"], "attempts or overview"],
  [["c"], "only attempts whose tokens were recorded"],
  [["x"], "no filters"],
  [["t"], "light or dark"],
  [["?"], "this list"],
  [["Esc"], "leave search, close this list"],
];

/** `actions`: what each key does; arrows are given by their names. */
export function listen(actions) {
  dialog.append(
    h("h2", {}, "Keyboard"),
    h("dl", {}, ...KEYS.flatMap(([keys, meaning]) => [h("dt", {}, ...keys.map((key) => h("kbd", {}, key))), h("dd", {}, meaning)])),
  );
  dialog.addEventListener("click", () => dialog.close());
  document.getElementById("help").addEventListener("click", help);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const action = event.key === "?" ? help : dialog.open ? null : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function help() {
  if (dialog.open) dialog.close();
  else dialog.showModal();
}
