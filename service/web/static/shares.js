// Outcome shares over time: a stacked column for each bucket, a gap where no share is known.

import { byId, el, load, many, options, table, visible } from "./dom.js";

const SPANS = {
  hourly: [[2, "2 days"], [7, "7 days"], [31, "31 days"]],
  daily: [[30, "30 days"], [90, "90 days"], [365, "a year"], [1096, "3 years"]],
  monthly: [[366, "a year"], [1096, "3 years"], [2557, "7 years"]],
};
const LIGHT = ["#1f77b4", "#e08214", "#2a9d5c", "#b2182b", "#8465a8", "#7f5539", "#d66ba0", "#5f6b6d", "#9a9a1c", "#1b9e9e", "#404080", "#c0c0b8"];
const DARK = ["#5fa8dd", "#f5a94d", "#58c98a", "#e8606d", "#b397d6", "#b98a69", "#f09bc6", "#a3b0b3", "#cccc4a", "#4fd0d0", "#8c8ce0", "#6c6c66"];
const scheme = matchMedia("(prefers-color-scheme: dark)");
const note = () => byId("chart-note");
let drawn = null; // { data, plot, fills, at }

export function start() {
  spans();
  byId("granularity").addEventListener("change", () => { spans(); refreshChart(); });
  for (const id of ["flow", "span"]) byId(id).addEventListener("change", refreshChart);
  byId("shares-org").addEventListener("change", () => flows().then(refreshChart));
  let timer = 0;
  byId("flow-search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => flows().then(refreshChart), 250);
  });
  byId("figures").addEventListener("toggle", figures);
  scheme.addEventListener("change", () => drawn && draw(drawn.data));
  const chart = byId("chart");
  chart.tabIndex = 0;
  chart.setAttribute("role", "img");
  chart.addEventListener("keydown", step);
  new ResizeObserver(() => drawn?.plot?.setSize(size())).observe(chart);
}

function spans() {
  const usual = { hourly: "7", daily: "90", monthly: "1096" }[byId("granularity").value];
  byId("span").replaceChildren(...SPANS[byId("granularity").value].map(([days, text]) => el("option", { value: days }, text)));
  byId("span").value = usual;
}

export async function flows() {
  const org = byId("shares-org").value;
  if (!org) return;
  const { document: data } = await load("api/flows", { org, q: byId("flow-search").value, limit: 200 });
  options(byId("flow"), data.flows.map((flow) => [flow.flow_id, flow.name ? `${flow.name} (${flow.flow_id.slice(0, 8)})` : flow.flow_id]));
}

export async function refresh() {
  if (!byId("flow").value) await flows();
  await refreshChart();
}

async function refreshChart() {
  const flow = byId("flow").value, org = byId("shares-org").value;
  if (!flow || !org) {
    drawn?.plot?.destroy();
    drawn = null;
    byId("chart-legend").replaceChildren();
    note().textContent = org ? "No flows yet." : "";
    return;
  }
  const past = new Date(Date.now() + 86400000), first = new Date(past - byId("span").value * 86400000);
  const days = { from: first.toISOString().slice(0, 10), to: past.toISOString().slice(0, 10) };
  try {
    const { document: data } = await load("api/shares", { org, flow, granularity: byId("granularity").value, ...days });
    if (drawn?.data !== data) draw(data);
  } catch (error) {
    note().textContent = visible(error.message);
    throw error;
  }
}

const size = () => ({ width: Math.max(240, byId("chart").clientWidth), height: 300 });
const nameOf = (series, data) => (series.name === null ? `${many(data.outcomes - data.series.length + 1, "other")} combined` : visible(series.name));
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Two of three patterns are hatched, so that colour is not the only difference.
function fill(place) {
  const paint = (scheme.matches ? DARK : LIGHT)[place % 12];
  const tile = el("canvas", { width: 8, height: 8 });
  const brush = tile.getContext("2d");
  brush.fillStyle = paint;
  brush.fillRect(0, 0, 8, 8);
  brush.strokeStyle = colour("--paper");
  brush.lineWidth = 1.2;
  brush.beginPath();
  if (place % 3 === 1) { brush.moveTo(-2, 10); brush.lineTo(10, -2); }
  if (place % 3 === 2) { brush.moveTo(0, 4); brush.lineTo(8, 4); }
  brush.stroke();
  return brush.createPattern(tile, "repeat");
}

// Each outcome's column reaches up to the sum of those below it; the lower columns are drawn over the higher ones.
function stacked(data) {
  const sums = data.starts.map(() => 0);
  const tops = data.series.map((series) => series.shares.map((share, place) => {
    if (share === null) return null;
    sums[place] += share;
    return sums[place];
  }));
  return [data.starts.map((_, place) => place), ...tops.reverse()];
}

function draw(data) {
  drawn?.plot?.destroy();
  const chart = byId("chart"), fills = data.series.map((_, place) => fill(place));
  const bars = uPlot.paths.bars({ size: [0.92, 60], gap: 0 });
  const series = fills.map((pattern) => ({ fill: () => pattern, width: 0, paths: bars, points: { show: false } })).reverse();
  const ink = colour("--quiet"), line = colour("--line");
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const nulls = new Set(data.series.flatMap((each) => each.nulls));
  const plot = new uPlot({
    ...size(),
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    scales: { x: { time: false, range: (_, low, high) => [low - 0.6, high + 0.6] }, y: { range: [0, 1.02] } },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map((at) => (Number.isInteger(at) ? data.labels[at] ?? "" : "")), space: 90 },
      { ...axis, values: (_, ticks) => ticks.map((share) => (share > 1 ? "" : `${Math.round(share * 100)} %`)), size: 56 },
    ],
    series: [{}, ...series],
    hooks: { draw: [(made) => rings(made, nulls, ink)], setCursor: [(made) => legend(data, fills, made.cursor.idx)] },
  }, stacked(data), chart);
  drawn = { data, plot, fills, at: null };
  chart.setAttribute("aria-label", `Shares of ${many(data.outcomes, "outcome")} over ${many(data.starts.length, "bucket")}; arrow keys select a bucket, the table below lists all`);
  legend(data, fills, null);
  const words = data.series.length ? [many(data.outcomes, "outcome")] : ["No figures of this flow in this span"];
  if (nulls.size) words.push(`○ marks ${many(nulls.size, "bucket")} with a figure that is null`);
  note().textContent = `${words.join("; ")}.`;
  figures();
}

// A ring marks a null figure: expected and not reported, or unknown.
function rings(plot, nulls, ink) {
  const brush = plot.ctx;
  brush.save();
  brush.strokeStyle = ink;
  brush.lineWidth = 1.5 * devicePixelRatio;
  for (const place of nulls) {
    brush.beginPath();
    brush.arc(plot.valToPos(place, "x", true), plot.valToPos(1.01, "y", true), 2.5 * devicePixelRatio, 0, 7);
    brush.stroke();
  }
  brush.restore();
}

function legend(data, fills, at) {
  if (drawn) drawn.at = at ?? null;
  const items = data.series.map((series, place) => {
    const swatch = el("canvas", { class: "swatch", width: 24, height: 16, "aria-hidden": "true" });
    const brush = swatch.getContext("2d");
    brush.fillStyle = fills[place];
    brush.fillRect(0, 0, 24, 16);
    const total = series.counts.reduce((sum, count) => sum + (count ?? 0), 0);
    const text = at === null || at === undefined ? `${total.toLocaleString("en")} in total` : figure(series, at);
    return el("li", {}, swatch, el("bdi", {}, nameOf(series, data)), `: ${text || "–"}`);
  });
  if (at !== null && at !== undefined) items.unshift(el("li", {}, el("strong", {}, data.labels[at])));
  byId("chart-legend").replaceChildren(...items);
}

function step(event) {
  if (!drawn || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  const last = drawn.data.starts.length - 1;
  const from = drawn.at ?? (event.key === "ArrowLeft" ? last + 1 : -1);
  const at = Math.min(last, Math.max(0, from + (event.key === "ArrowLeft" ? -1 : 1)));
  drawn.plot.setCursor({ left: drawn.plot.valToPos(at, "x"), top: 10 });
  byId("chart-legend").setAttribute("aria-live", "polite");
  event.preventDefault();
}

function figure(series, place) {
  if (series.counts[place] === null) return series.nulls.includes(place) ? "null" : "";
  const share = series.shares[place];
  return `${series.counts[place].toLocaleString("en")} (${share === null ? "share unknown" : `${(share * 100).toFixed(1)} %`})`;
}

function figures() {
  if (!byId("figures").open || !drawn) return;
  const data = drawn.data;
  const headings = [{ text: "bucket", when: true }, ...data.series.map((series) => ({ text: nameOf(series, data), number: true }))];
  const rows = data.starts.map((_, place) => ({ cells: [data.labels[place], ...data.series.map((series) => figure(series, place))] }));
  byId("figures-body").replaceChildren(table(headings, rows.reverse(), "Figures").firstChild);
}
