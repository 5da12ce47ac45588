// Small charts as SVG; a gap in the values is a gap in the line.

import { svg } from "./dom.js";

const TOP = 0.06; // of the height, above the largest value

function scale(values, width, height, { zero = false, edge = 2, least = 0 } = {}) {
  const known = values.filter((value) => value !== null && value !== undefined);
  let low = zero ? 0 : Math.min(...known), high = Math.max(...known);
  if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
  const room = (high - low || Math.abs(high) || 1) * TOP;
  if (!zero) low -= room * 2;
  high += room;
  const step = (width - 2 * edge) / Math.max(1, values.length - 1);
  return { x: (place) => edge + place * step, y: (value) => height - 1 - ((value - low) / (high - low || 1)) * (height - 2) };
}

// The path of the values, and each run of known ones as [first, last].
function line(values, at) {
  let path = "", runs = [], begun = null;
  values.forEach((value, place) => {
    if (value === null || value === undefined) {
      begun = null;
      return;
    }
    path += `${begun === null ? "M" : "L"}${at.x(place).toFixed(1)} ${at.y(value).toFixed(1)}`;
    if (begun === null) runs.push([place, place]);
    runs.at(-1)[1] = begun = place;
  });
  return { path, runs };
}

export function sparkline(values, { width = 150, height = 28, label = "", tone = "", area = false, least = 0, zero = false } = {}) {
  const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: `spark ${tone}`, ...(label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" }) });
  const known = values.map((value, place) => [value, place]).filter(([value]) => value !== null && value !== undefined);
  if (!known.length) return chart;
  const at = scale(values, width, height, { least, zero }), { path, runs } = line(values, at);
  if (area) for (const run of runs) chart.append(under(values, run, at, height));
  chart.append(svg("path", { d: path, fill: "none", stroke: "currentColor", "stroke-width": 1.6, "stroke-linejoin": "round", "stroke-linecap": "round" }));
  const [last, place] = known.at(-1);
  chart.append(svg("circle", { cx: at.x(place).toFixed(1), cy: at.y(last).toFixed(1), r: 2.4, fill: "currentColor" }));
  return chart;
}

function under(values, [first, last], at, height) {
  let path = `M${at.x(first).toFixed(1)} ${height}`;
  for (let place = first; place <= last; place += 1) path += `L${at.x(place).toFixed(1)} ${at.y(values[place]).toFixed(1)}`;
  return svg("path", { d: `${path}L${at.x(last).toFixed(1)} ${height}Z`, fill: "currentColor", opacity: 0.12 });
}

// One outcome over time; `was` is drawn dashed, `nulls` as rings at the foot.
export function area(values, { was = null, nulls = [], label = "", width = 540, height = 92 } = {}) {
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  const all = was ? [...values, ...was] : values;
  if (!all.some((value) => value !== null && value !== undefined)) return chart;
  const top = scale(all, width, height, { zero: true, edge: 0 });
  const at = { ...scale(values, width, height, { zero: true, edge: 3 }), y: top.y };
  const { path, runs } = line(values, at);
  for (const run of runs) chart.append(under(values, run, at, height));
  const stroke = { fill: "none", stroke: "currentColor", "stroke-width": 1.6, "stroke-linejoin": "round", "vector-effect": "non-scaling-stroke" };
  chart.append(svg("path", { d: path, ...stroke }));
  for (const [first, last] of runs) {
    if (first === last) chart.append(svg("path", { d: `M${at.x(first)} ${at.y(values[first])}h0.01`, ...stroke, "stroke-width": 5, "stroke-linecap": "round" }));
  }
  if (was) chart.append(svg("path", { d: line(was, at).path, ...stroke, "stroke-dasharray": "4 3", opacity: 0.75 }));
  for (const place of nulls) {
    chart.append(svg("path", { d: `M${at.x(place)} ${height - 3}h0.01`, fill: "none", stroke: "var(--soft)", "stroke-width": 6, "stroke-linecap": "round", "vector-effect": "non-scaling-stroke" }));
  }
  return chart;
}

// A strip of days: the height says the state, too.
const HEIGHTS = { C: 11, R: 14, D: 16, W: 4, A: 8, L: 16, N: 20, F: 20 };

export function strip(letters, label) {
  const step = 8, height = 20;
  const chart = svg("svg", { viewBox: `0 0 ${letters.length * step} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  for (let place = 0; place < letters.length; place += 1) {
    const letter = letters[place], tall = HEIGHTS[letter];
    if (!tall) continue;
    chart.append(svg("rect", { x: place * step, y: (height - tall) / 2, width: step - 1.6, height: tall, rx: 1.4, class: `strip-${letter}` }));
  }
  return chart;
}
