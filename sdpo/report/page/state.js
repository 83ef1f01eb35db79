// What the reader looks at, and the link that restores it: everything stands in the address behind the #.

const EVERYTHING = {
  view: "attempts",
  open: null, // {run, step, row}
  beside: null, // likewise, of the other run
  token: null,
  run: 0, // whose attempts are listed
  step: null,
  outcome: "", // solved, failed or aside
  environment: "",
  family: "",
  least: null,
  most: null,
  credit: false,
  words: "",
};
export const FILTERS = ["run", "step", "outcome", "environment", "family", "least", "most", "credit", "words"];
export const state = { ...EVERYTHING, ...read(location.hash) };
const listeners = [];

/** Calls back with the set of keys that have changed. */
export function onChange(listener) {
  listeners.push(listener);
}

/** `goes`: whether "back" should return to what was before. */
export function change(patch, { goes = false } = {}) {
  const changed = new Set(Object.keys(patch).filter((key) => !same(state[key], patch[key])));
  if (!changed.size) return;
  Object.assign(state, patch);
  history[goes ? "pushState" : "replaceState"](null, "", link(state));
  for (const listener of listeners) listener(changed);
}

/** Opening an attempt also forgets what was chosen in another. */
export function open(place, more = {}) {
  change({ view: "attempts", open: place, beside: null, token: null, ...more }, { goes: true });
}

/** The address of a state. */
export function link(wanted) {
  const words = new URLSearchParams();
  for (const [key, usual] of Object.entries(EVERYTHING)) {
    const value = wanted[key];
    if (same(value, usual)) continue;
    words.set(key, key === "open" || key === "beside" ? `${value.run}.${value.step}.${value.row}` : String(value));
  }
  return `#${words}`;
}

addEventListener("popstate", restore);
addEventListener("hashchange", restore);

function restore() {
  const wanted = { ...EVERYTHING, ...read(location.hash) };
  const changed = new Set(Object.keys(wanted).filter((key) => !same(state[key], wanted[key])));
  if (!changed.size) return;
  Object.assign(state, wanted);
  for (const listener of listeners) listener(changed);
}

/** A link may have been written by anybody: what is no number is left out. */
function read(hash) {
  const found = {};
  for (const [key, text] of new URLSearchParams(hash.slice(1))) {
    if (key === "open" || key === "beside") {
      const match = /^([01])\.(\d{1,9})\.(\d{1,9})$/.exec(text);
      if (match) found[key] = { run: +match[1], step: +match[2], row: +match[3] };
    } else if (["token", "step", "least", "most"].includes(key)) {
      if (/^\d{1,9}$/.test(text)) found[key] = +text;
    } else if (key === "run") {
      if (text === "1") found.run = 1;
    } else if (key === "credit") {
      found.credit = text === "true";
    } else if (key === "view") {
      if (text === "overview") found.view = text;
    } else if (key in EVERYTHING) {
      found[key] = text.slice(0, 1000);
    }
  }
  return found;
}

const same = (one, other) => one === other || JSON.stringify(one) === JSON.stringify(other);
