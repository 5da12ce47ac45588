// All outcomes of a flow as stacked columns, by uPlot: it stays quick with a thousand buckets.

import { el, many, name, visible } from "./dom.js";
import * as format from "./format.js";

const HEIGHT = 210;
const scheme = matchMedia("(prefers-color-scheme: dark)");
let drawn = null; // { plot, box, legend, document, observer, at }

const style = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
const nameOf = (series, data) => (series.name === null ? `${many(data.outcomes - data.series.length + 1, "other")} together` : series.name);
const paint = (series) => style(series.colour === null ? "--rest" : `--c${series.colour % 10}`);

export function remove() {
  drawn?.observer.disconnect();
  drawn?.plot.destroy();
  drawn = null;
}

// Each outcome's column reaches up to the sum of those below it; the lower columns are drawn over the higher ones.
function stacked(data) {
  const sums = data.starts.map(() => 0);
  const tops = data.series.map((series) => series.counted.map((count, place) => {
    if (count === null) return null;
    sums[place] += count;
    return sums[place];
  }));
  return { columns: [data.starts.map((_, place) => place), ...tops.reverse()], highest: Math.max(1, ...sums) };
}

// Every other hatched, so that colour is not the only difference.
function fill(series, place) {
  if (place % 2 === 0) return paint(series);
  const tile = el("canvas", { width: 6, height: 6 }), brush = tile.getContext("2d");
  brush.fillStyle = paint(series);
  brush.fillRect(0, 0, 6, 6);
  brush.strokeStyle = style("--card");
  brush.globalAlpha = 0.55;
  brush.beginPath();
  brush.moveTo(-1, 7);
  brush.lineTo(7, -1);
  brush.stroke();
  return brush.createPattern(tile, "repeat");
}

export function draw(box, legend, data) {
  remove();
  const { columns, highest } = stacked(data), width = () => Math.max(240, box.clientWidth);
  const labels = data.starts.map((start) => format.bucket(start, data.granularity, data.timezone));
  const fills = data.series.map(fill), bars = uPlot.paths.bars({ size: [0.86, 60], gap: 0 });
  const axis = { stroke: style("--soft"), font: "12px system-ui, sans-serif", grid: { stroke: style("--line"), width: 1 }, ticks: { show: false } };
  const plot = new uPlot({
    width: width(), height: HEIGHT, legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    scales: { x: { time: false, range: (_, low, high) => [low - 0.6, high + 0.6] }, y: { range: [0, highest * 1.04] } },
    axes: [
      { ...axis, size: 30, grid: { show: false }, values: (_, ticks) => ticks.map((at) => (Number.isInteger(at) ? labels[at] ?? "" : "")), space: 110 },
      { ...axis, values: (_, ticks) => ticks.map((count) => (Number.isInteger(count) ? format.number(count) : "")), size: 64 },
    ],
    series: [{}, ...fills.map((pattern) => ({ fill: () => pattern, width: 0, paths: bars, points: { show: false } })).reverse()],
    hooks: { setCursor: [(made) => fillLegend(made.cursor.idx)] },
  }, columns, box);
  const observer = new ResizeObserver(() => plot.setSize({ width: width(), height: HEIGHT }));
  observer.observe(box);
  drawn = { plot, box, legend, data, labels, observer, at: null };
  box.tabIndex = 0;
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", `All ${many(data.outcomes, "outcome")} stacked over ${many(labels.length, "bucket")}; arrow keys move, the table below has every figure`);
  box.onkeydown = step;
  fillLegend(null);
}

function fillLegend(at) {
  if (!drawn) return;
  const { data, labels, legend } = drawn;
  drawn.at = at ?? null;
  const chosen = at !== null && at !== undefined;
  const items = data.series.map((series, place) => {
    const swatch = el("canvas", { class: "swatch", width: 12, height: 12, "aria-hidden": "true" }), brush = swatch.getContext("2d");
    brush.fillStyle = fill(series, place);
    brush.fillRect(0, 0, 12, 12);
    const count = chosen ? (series.counted[at] === null ? (series.nulls.includes(at) ? "null" : "–") : format.number(series.counted[at])) : "";
    return el("li", {}, swatch, name(nameOf(series, data)), chosen ? ` ${count}` : "");
  });
  legend.replaceChildren(...(chosen ? [el("li", {}, el("b", {}, visible(labels[at])))] : []), ...items);
}

function step(event) {
  if (!drawn || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  const last = drawn.labels.length - 1, from = drawn.at ?? (event.key === "ArrowLeft" ? last + 1 : -1);
  const at = Math.min(last, Math.max(0, from + (event.key === "ArrowLeft" ? -1 : 1)));
  drawn.plot.setCursor({ left: drawn.plot.valToPos(at, "x"), top: 10 });
  drawn.legend.setAttribute("aria-live", "polite");
  event.preventDefault();
}

scheme.addEventListener("change", () => drawn && draw(drawn.box, drawn.legend, drawn.data));
