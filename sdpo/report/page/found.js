// Marks what a search looked for, without touching the elements: tokens stay tokens.

const MOST = 2000;

/** Mark the words wherever they stand below an element. */
export function markFound(root, words) {
  if (!window.CSS?.highlights) return;
  CSS.highlights.delete("found");
  if (!words) return;
  const nodes = [];
  let text = "";
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    if (walker.currentNode.parentElement.closest("header, .end")) continue;
    nodes.push([text.length, walker.currentNode]);
    text += walker.currentNode.data;
  }
  const [within, wanted] = [text.toLowerCase(), words.toLowerCase()];
  if (within.length !== text.length) return; // letters whose small form is longer: places would be wrong
  const ranges = [];
  for (let at = within.indexOf(wanted); at >= 0 && ranges.length < MOST; at = within.indexOf(wanted, at + wanted.length)) {
    const range = new Range();
    range.setStart(...pointAt(nodes, at));
    range.setEnd(...pointAt(nodes, at + wanted.length, true));
    ranges.push(range);
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}

/** The text node at a place, and the place in it. */
function pointAt(nodes, at, isEnd = false) {
  let [low, high] = [0, nodes.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (nodes[middle][0] < at || (!isEnd && nodes[middle][0] === at)) low = middle;
    else high = middle - 1;
  }
  return [nodes[low][1], at - nodes[low][0]];
}
