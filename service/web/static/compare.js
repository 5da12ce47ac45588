// As of: a slider over the instants at which a flow's figures changed; a second one compares with the first.

import { el, many, name, scrolling, visible } from "./dom.js";
import * as format from "./format.js";
import { set } from "./state.js";

const SETTLE = 160; // ms after the slider's last move until the figures are loaded
const ROWS = 500;
let timer = 0;

const place = (instants, at) => { // of the last instant at or before; the last place of all is now
  if (!at || at === "now") return instants.length;
  const found = instants.findLastIndex((each) => each.at <= at);
  return Math.max(0, found);
};

function said(each) {
  const parts = [each.figures ? many(each.figures, "figure") : "", each.restated ? `${each.restated} restated` : "", each.renamed ? many(each.renamed, "name") : ""];
  return parts.filter(Boolean).join(", ");
}

export function controls({ instants, is }, parameters) {
  if (!instants.length) return [];
  const comparing = Boolean(parameters.vs), zone = is.timezone;
  const slider = (id, label, at, key) => {
    const output = el("output", { for: id }), words = (value) => (value >= instants.length ? "now" : `${format.time(instants[value].at, zone)}`);
    const input = el("input", { type: "range", id, min: 0, max: instants.length, step: 1, "aria-label": label, oninput: () => {
      show();
      clearTimeout(timer);
      const chosen = Number(input.value), instant = chosen >= instants.length ? (key === "vs" ? "now" : null) : instants[chosen].at;
      timer = setTimeout(() => set({ [key]: instant }, { replace: Boolean(parameters[key]) }), SETTLE);
    } });
    const show = () => {
      const value = Number(input.value);
      output.replaceChildren(el("b", {}, words(value)), value < instants.length ? el("span", { class: "quiet" }, ` ${said(instants[value])}`) : "");
      input.setAttribute("aria-valuetext", words(value));
    };
    input.value = place(instants, at);
    show();
    return [el("label", { for: id }, label), input, output];
  };
  const button = el("button", { type: "button", id: "compare", "aria-pressed": String(comparing), title: "Compare with another instant (c)", onclick: () => set(comparing ? { vs: null } : { at: parameters.at ?? instants.at(-2)?.at ?? instants[0].at, vs: "now" }) }, "Compare");
  const present = el("button", { type: "button", id: "now", disabled: !parameters.at && !comparing, onclick: () => set({ at: null, vs: null }) }, "Now");
  return el("section", { class: "card time", "aria-label": "As of" },
    slider("as-of", "As of", parameters.at, "at"), el("span", {}, button, " ", present),
    ...(comparing ? [slider("with", "Compared with", parameters.vs, "vs"), el("span", {})] : []),
    parameters.at && !comparing ? el("p", { class: "wide warn" }, `These are the figures as they were on ${format.time(parameters.at, zone)}.`) : "");
}

const REASONS = {
  restated: (why, zone) => `restated ${format.time(why.at, zone)}`,
  extracted: (why, zone) => `extracted later, ${format.time(why.at, zone)}`,
  renamed: (why, zone) => [`renamed ${format.time(why.at, zone)}: `, name(why.from), " → ", name(why.to)],
  alias: (why, zone) => [`alias, ${format.time(why.at, zone)}: `, name(why.from), " → ", name(why.to)],
};

// Figures that only moved from one name to another are one line for each rename; the others are listed one by one.
function folded({ renamed, cells }) {
  const at = new Map(cells.map((cell) => [`${cell.start} ${cell.outcome}`, cell])), gone = new Set(), moved = [];
  for (const each of renamed) {
    const starts = [];
    for (const cell of cells) {
      if (cell.outcome !== each.old_name || cell.is !== null) continue;
      const other = at.get(`${cell.start} ${each.new_name}`);
      if (!other || other.was !== null || other.is !== cell.was) continue;
      starts.push(cell.start);
      gone.add(cell).add(other);
    }
    if (starts.length) moved.push({ from: each.old_name, to: each.new_name, kind: each.by_alias ? "alias" : "renamed", at: each.at, buckets: starts.length, first: Math.min(...starts), last: Math.max(...starts) });
  }
  return { moved, others: cells.filter((cell) => !gone.has(cell)) };
}

export function list({ differences, is }) {
  const zone = is.timezone, total = differences.differences;
  const head = el("h2", { id: "differences" }, total ? `What differs between the two instants: ${many(total, "figure")}` : "Nothing differs between the two instants");
  const names = differences.renamed.map((each) => el("p", { class: "sub" }, name(each.old_name), " is ", el("b", {}, name(each.new_name)), ` since ${format.time(each.at, zone)}: ${each.by_alias ? "an alias" : "renamed in Genesys Cloud"}`));
  if (!total) return [head, ...names];
  const flow = visible(is.flow.name ?? is.flow.flow_id);
  const { moved, others } = folded(differences);
  const moves = moved.map((each) => el("tr", { "data-moved": each.buckets },
    el("th", { scope: "row" }, each.first === each.last ? format.bucket(each.first, is.granularity, zone) : `${format.bucket(each.first, is.granularity, zone)} to ${format.bucket(each.last, is.granularity, zone)}`),
    el("td", { class: "l" }, many(each.buckets, { hourly: "hour", daily: "day", monthly: "month" }[is.granularity]), ", counts unchanged"), el("td", {}, el("s", {}, name(each.from))), el("td", {}, el("mark", {}, name(each.to))),
    el("td", { class: "l why" }, each.kind === "alias" ? `alias, ${format.time(each.at, zone)}` : `renamed ${format.time(each.at, zone)}`)));
  const rows = others.slice(0, ROWS).map((cell) => el("tr", {},
    el("th", { scope: "row" }, format.bucket(cell.start, is.granularity, zone)), el("td", { class: "l" }, name(cell.outcome)),
    el("td", {}, el("s", {}, cell.was === null ? "–" : format.number(cell.was))), el("td", {}, el("mark", {}, cell.is === null ? "–" : format.number(cell.is))),
    el("td", { class: "l why" }, cell.why.length ? cell.why.map((why, at) => [at ? "; " : "", REASONS[why.kind](why, zone)]) : "no longer expected, or expected since")));
  const made = el("table", { class: "sticky" }, el("caption", { class: "unseen" }, `Differences of ${flow}`), el("thead", {}, el("tr", {}, el("th", { scope: "col" }, { hourly: "Hour", daily: "Day", monthly: "Month" }[is.granularity]),
    el("th", { scope: "col", class: "l" }, "Outcome"), el("th", { scope: "col" }, "Was"), el("th", { scope: "col" }, "Is"), el("th", { scope: "col", class: "l" }, "Why"))), el("tbody", {}, moves, rows));
  const listed = rows.length + 2 * moved.reduce((sum, each) => sum + each.buckets, 0);
  const more = total > listed ? [el("p", { class: "sub" }, `The newest ${many(listed, "figure")} of ${format.number(total)}; Copy SQL gives all of them.`)] : [];
  return [head, ...names, scrolling("Differences", made, "cap"), ...more];
}
