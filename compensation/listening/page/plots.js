// Small plots as inline SVG.

const SPACE = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 170;
const EDGE = { left: 34, right: 14, top: 10, bottom: 30 };

function add(parent, name, attributes, text) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

/** Round numbers from low to high, about as many as wanted. */
function ticks(low, high, wanted) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) {
    found.push(Number(at.toPrecision(6)));
  }
  return found;
}

/**
 * A figure of values over the number of answers.
 *
 * points: `[{x, y, band}]`, the band `[low, high]` optional; y: `[low, high]`; mark: a dashed level;
 * known: levels at the right edge.
 */
export function plot({ title, points, y, most, mark, known = [] }) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  const svg = add(figure, "svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  figure.prepend(caption);
  const last = points.at(-1);
  const said = last ? `${title}: ${last.y.toFixed(2)} after ${last.x} answers` : `${title}: nothing yet`;
  svg.setAttribute("aria-label", said);
  const right = WIDTH - EDGE.right;
  const bottom = HEIGHT - EDGE.bottom;
  const across = (x) => EDGE.left + ((right - EDGE.left) * x) / Math.max(1, most);
  const clamp = (value) => Math.min(y[1], Math.max(y[0], value));
  const up = (value) => bottom - ((bottom - EDGE.top) * (clamp(value) - y[0])) / (y[1] - y[0]);
  for (const tick of ticks(y[0], y[1], 4)) {
    add(svg, "line", { class: "grid", x1: EDGE.left, x2: right, y1: up(tick), y2: up(tick) });
    add(svg, "text", { x: EDGE.left - 6, y: up(tick) + 4, "text-anchor": "end" }, String(tick));
  }
  for (const tick of ticks(0, Math.max(1, most), 4).filter(Number.isInteger)) {
    add(svg, "text", { x: across(tick), y: bottom + 14, "text-anchor": "middle" }, String(tick));
  }
  add(svg, "text", { x: (EDGE.left + right) / 2, y: HEIGHT - 2, "text-anchor": "middle" }, "answers");
  add(svg, "line", { class: "axis", x1: EDGE.left, x2: right, y1: bottom, y2: bottom });
  for (const level of known) {
    add(svg, "circle", { class: "known", cx: right + 6, cy: up(level), r: 3 });
  }
  if (mark !== undefined) {
    add(svg, "line", { class: "mark", x1: EDGE.left, x2: right, y1: up(mark), y2: up(mark) });
  }
  const at = (x, value) => `${across(x).toFixed(1)},${up(value).toFixed(1)}`;
  if (points.some((point) => point.band !== undefined)) {
    const above = points.map((p) => at(p.x, p.band[1]));
    const below = points.map((p) => at(p.x, p.band[0])).reverse();
    add(svg, "polygon", { class: "band", points: [...above, ...below].join(" ") });
  }
  add(svg, "polyline", { class: "line", points: points.map((p) => at(p.x, p.y)).join(" ") });
  if (last) add(svg, "circle", { class: "dot", cx: across(last.x), cy: up(last.y), r: 3.5 });
  return figure;
}
