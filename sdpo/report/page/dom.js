// How text that nobody can trust comes onto the page: as text nodes, with what cannot be seen made visible. Nothing here, or
// anywhere in the page, parses markup.

const PICTURE = 0x2400; // "symbol for null": the control characters have pictures from here on
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** An element with properties, `data` attributes, other attributes, and children: strings become text. */
export function h(tag, { data = {}, attributes = {}, on = {}, ...properties } = {}, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  for (const [event, handler] of Object.entries(on)) element.addEventListener(event, handler);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Text with control characters as pictures, turns of direction and invisible characters by code, half characters as �. */
export function visible(text) {
  return text.replace(UNSEEN, (character) => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(PICTURE + code);
    if (code === 0x7f) return "\u2421";
    if (code >= 0xd800 && code <= 0xdfff) return "\ufffd";
    return `[${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
}

/** A short text on one line. */
export function oneLine(text, most = 200) {
  const shown = visible(text.slice(0, most)).replaceAll("\n", "↵").replaceAll("\t", "⇥");
  return text.length > most ? `${shown}…` : shown;
}

/** A token on one line, its spaces dotted. */
export const tokenText = (text) => oneLine(text, 60).replaceAll(" ", "·");

export const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
export const signed = (value, digits = 2) => (value >= 0 ? "+" : "") + number(value, digits);

/** A probability from its logarithm: three figures where it is small. */
export function share(logprob) {
  const percent = 100 * Math.exp(logprob);
  if (percent >= 99.95) return "100%";
  if (percent >= 0.1) return `${percent.toFixed(1)}%`;
  return percent >= 0.001 ? `${percent.toPrecision(1)}%` : `${percent.toExponential(0).replace("-", "−")}%`;
}
