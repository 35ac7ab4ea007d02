// Curves of several runs over the steps, as SVG; a table of the last values says the same in words.

import { el, svg } from "./dom.js";

const WIDTH = 640, HEIGHT = 264, LEFT = 88, RIGHT = 12, TOP = 12, BOTTOM = 44;
/** How a label at x of the axis is anchored, so that none is cut at its end. */
const anchor = (x) => (x > WIDTH - RIGHT - 60 ? "end" : "middle");
export const color = (i) => `var(--c${i % 6})`;
const DASHES = ["", "7 4", "2 3"];
export const dash = (i) => DASHES[Math.floor(i / 6) % DASHES.length];

/** A short text of a number. */
export const short = (value) => (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e9)
  ? value.toExponential(2) : Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 }));

function ticks(low, high, count) {
  const step = 10 ** Math.floor(Math.log10((high - low) / count || 1));
  const nice = [1, 2, 5, 10].map((f) => f * step).find((s) => (high - low) / s <= count);
  const found = [];
  for (let v = Math.ceil(low / nice) * nice; v <= high + 1e-9 * nice; v += nice) found.push(Number(v.toPrecision(12)));
  return found;
}

/** A chart. `series`: [{name, points: [[step, value], ...], order}]; `log` for a logarithmic axis. */
export function chart(title, series, log) {
  const all = series.flatMap((s) => s.points).filter(([, y]) => !log || y > 0);
  if (!all.length) return el("figure", {}, el("figcaption", {}, `${title}: no positive values`));
  const f = log ? Math.log10 : (v) => v;
  const xs = all.map((p) => p[0]), ys = all.map((p) => f(p[1]));
  const x0 = xs.reduce((a, b) => Math.min(a, b)), x1 = xs.reduce((a, b) => Math.max(a, b));
  let y0 = ys.reduce((a, b) => Math.min(a, b)), y1 = ys.reduce((a, b) => Math.max(a, b));
  if (y1 - y0 < 1e-12) [y0, y1] = [y0 - 0.5, y1 + 0.5];
  const X = (v) => LEFT + ((v - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - RIGHT);
  const Y = (v) => HEIGHT - BOTTOM - ((f(v) - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const node = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} over the steps` });
  const levels = log ? ticks(y0, y1, 4).map((v) => 10 ** v) : ticks(y0, y1, 5);
  for (const v of levels) {
    node.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: Y(v), y2: Y(v), class: "grid" }),
      svg("text", { x: LEFT - 8, y: Y(v) + 4, "text-anchor": "end" }, short(v)));
  }
  for (const v of ticks(x0, x1, 6)) node.append(svg("text", { x: X(v), y: HEIGHT - 23, "text-anchor": anchor(X(v)) }, short(v)));
  node.append(svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, "step"));
  for (const { points, order, name } of series) {
    const kept = points.filter(([, y]) => !log || y > 0);
    const line = kept.map(([x, y], i) => `${i ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("");
    const path = kept.length > 1
      ? svg("path", { d: line, class: "curve", "stroke-dasharray": dash(order) })
      : svg("circle", { cx: X(kept[0]?.[0] ?? x0), cy: kept[0] ? Y(kept[0][1]) : 0, r: kept[0] ? 3.5 : 0, class: "point" });
    path.style.setProperty("--series", color(order));
    path.append(svg("title", {}, name));
    node.append(path);
  }
  return el("figure", { class: "chart" }, el("figcaption", {}, title), node);
}
