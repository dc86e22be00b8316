// What is wrong with how the page looks: a list of texts.
const faults = [];
const width = document.documentElement.clientWidth;
const name = (e) => `<${e.tagName.toLowerCase()} class="${e.getAttribute("class") ?? ""}">`;
const words = (text) => JSON.stringify(text.trim().slice(0, 60));

// What may be cut off, and why.
const ALLOWED = [
  // Shown when it has the focus; until then it stands outside of the window.
  (e) => e.matches(".skip"),
  // Ends with an ellipsis, and the whole of it is in the title.
  (e) => getComputedStyle(e).textOverflow === "ellipsis" && e.title === e.textContent,
  // A table of many columns scrolls within itself, beside the names of its rows.
  (e) => e.matches(".grid"),
];
const allowed = (e) => ALLOWED.some((rule) => rule(e));

// An element that the reader can scroll holds whatever is wider than it.
const scrolls = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
const cuts = (e) => ["hidden", "clip"].includes(getComputedStyle(e).overflowX);

// How much a `clip-path: inset()` takes away at each side.
const inset = (e) => {
  const found = getComputedStyle(e).clipPath.match(/^inset\(([^)]*)\)/);
  if (!found) return null;
  const [top, right = top, bottom = top, left = right] = found[1].split(" ").map(parseFloat);
  return { top, right, bottom, left };
};

for (const details of document.querySelectorAll("details")) details.open = true;
if (document.documentElement.scrollWidth > width) {
  faults.push(`the page is ${document.documentElement.scrollWidth} px wide, the window ${width}`);
}
for (const e of document.body.querySelectorAll("*")) {
  if (e instanceof SVGElement || !e.checkVisibility() || allowed(e)) continue;
  if (scrolls(e) && e.scrollWidth > e.clientWidth && !e.matches("pre")) {
    faults.push(`${name(e)} scrolls sideways: ${e.scrollWidth} > ${e.clientWidth}`);
  }
  if (cuts(e) && (e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight + 1)) {
    faults.push(`${name(e)} cuts off: ${e.scrollWidth} > ${e.clientWidth} or ${e.scrollHeight} > ${e.clientHeight}`);
  }
}
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
text: while (texts.nextNode()) {
  const text = texts.currentNode;
  const parent = text.parentElement;
  if (!text.data.trim() || parent instanceof SVGElement || !parent.checkVisibility()) continue;
  const range = document.createRange();
  range.selectNodeContents(text);
  const rects = [...range.getClientRects()].filter((rect) => rect.width > 0);
  let left = 0;
  let right = width;
  for (let e = parent; e !== document.body; e = e.parentElement) {
    if (allowed(e) || scrolls(e)) continue text;
    const box = e.getBoundingClientRect();
    if (cuts(e)) {
      left = Math.max(left, box.left);
      right = Math.min(right, box.right);
    }
    const taken = inset(e);
    if (taken) {
      left = Math.max(left, box.left + taken.left);
      right = Math.min(right, box.right - taken.right);
    }
  }
  for (const rect of rects) {
    if (rect.left < left - 0.6 || rect.right > right + 0.6) {
      faults.push(`${name(parent)} ${words(text.data)} is cut off: ${rect.left} to ${rect.right} of ${left} to ${right}`);
      break;
    }
  }
}
return faults;
