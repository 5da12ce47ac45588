// The overview: every flow, the last seven whole days beside the seven before.

import { sparkline } from "./charts.js";
import { byId, el, empty, failure, loading, many, name, scrolling, segments, visible } from "./dom.js";
import * as format from "./format.js";
import { kept, load } from "./net.js";
import { link, set } from "./state.js";

const FEW = 50; // operations in a week below which a change says little
const MEASURES = [["rate", "Success rate"], ["count", "Count"], ["share", "Share"], ["duration", "Duration"]];
const LEAST = { rate: 0.1, share: 0.1, duration: 20000 }; // the smallest range of a sparkline: noise looks flat
const FIRST = 60, PIECE = 250; // rows that are drawn before the first paint, and in each turn after it
let shown = null; // { document, key }: what the table shows
let rows = []; // { row, text } of each flow; its row is null until it is drawn
let draw = () => {}; // draws the next rows, by default all that are left

addEventListener("beforeprint", () => draw());

const request = ({ org, measure }) => ({ org, measure });

export async function show(main, parameters, now, back = false) {
  shown = null;
  const before = kept("api/overview", request(parameters));
  main.replaceChildren(el("div", { id: "overview" }, before ? [] : loading()));
  if (before) render(before, parameters);
  if (before && back) draw(); // the browser scrolls to where the reader was
  await refresh(parameters);
}

export async function refresh(parameters) {
  try {
    render(await load("api/overview", request(parameters)), parameters);
  } catch (error) {
    if (!shown) byId("overview")?.replaceChildren(failure(error));
    throw error;
  }
}

// Parameters that need no other document: only the table changes.
export function update(parameters) {
  const document = kept("api/overview", request(parameters));
  if (document) render(document, parameters);
  else return show(byId("main"), parameters);
}

function render(document, parameters) {
  const root = byId("overview");
  if (!root) return;
  if (!document.days.length) {
    root.replaceChildren(...heading(document), empty("No whole day is stored yet", "Figures appear here when the first day has been extracted. ", el("a", { href: link("health", { org: document.org }), "data-go": true }, "Health"), " shows the progress."));
    shown = { document };
    return;
  }
  const focused = globalThis.document.activeElement?.id, place = placeOf(root), again = shown?.key;
  if (shown?.document !== document) {
    root.replaceChildren(...heading(document), ...missing(document), tiles(document), tools(document, parameters), el("div", { id: "flows" }));
    shown = { document };
  }
  const search = byId("search");
  if (globalThis.document.activeElement !== search) search.value = parameters.q ?? "";
  const key = JSON.stringify([parameters.sort]);
  if (shown.key !== key) {
    shown.key = key;
    byId("flows").replaceChildren(table(document, parameters));
    if (place) returnTo(again === key ? place : { ...place, top: 0 }); // another order begins at the top
    if (focused) byId(focused)?.focus({ preventScroll: true });
  }
  filter(document, parameters);
}

// Where the reader is in the table: new figures or another order replace it.
function placeOf(root) {
  const box = root.querySelector(".list"), flow = globalThis.document.activeElement?.closest("[data-flow]")?.dataset.flow;
  return box && (box.scrollTop || box.scrollLeft || flow) ? { top: box.scrollTop, left: box.scrollLeft, flow } : null;
}

function returnTo({ top, left, flow }) {
  if (top || flow) draw();
  const box = byId("flows").querySelector(".list");
  if (flow) rows.find(({ row }) => row.dataset.flow === flow)?.row.querySelector("a").focus({ preventScroll: true });
  box.scrollTo(left, top);
}

function heading(document) {
  const days = document.days.slice(-7);
  const facts = [document.org, days.length ? many(document.flows.length, "flow") : null, document.timezone].filter(Boolean).join(" · ");
  return [
    el("h1", {}, days.length ? `Week of ${format.days(days[0], days.at(-1))}` : "Overview"),
    el("p", { class: "sub" }, days.length ? `against the week before · ${facts}` : facts),
  ];
}

function missing(document) {
  const lacking = document.missing.filter((date) => date >= document.days.at(-14));
  if (!lacking.length) return [];
  const listed = lacking.slice(0, 4).map(format.day).join(", ") + (lacking.length > 4 ? ` and ${lacking.length - 4} more` : "");
  return [el("p", { class: "note" }, el("span", {}, `${listed}: not stored. Changes compare the ${many(document.compared, "day")} that both weeks have. `,
    el("a", { href: link("health", { org: document.org }), "data-go": true }, "Why")))];
}

function tile(title, value, change, tone, chart) {
  return el("section", { class: "tile" }, chart, el("h2", {}, title), el("p", { class: "n" }, value), el("p", { class: `d ${tone}` }, change));
}

function tiles(document) {
  const { totals, restated, flows } = document;
  const chart = (values, least = 0, zero = false) => sparkline(values, { width: 84, height: 36, area: true, least, zero });
  const against = (change) => (change.value === null ? "no week before" : `${change.text}${change.value ? "" : " change"}`);
  const count = format.change(totals.now, totals.before, "percent");
  const made = [tile("Operations", format.short(totals.total), against(count), count.tone, chart(totals.days))];
  if ("rate" in totals) {
    const rate = format.change(totals.rate_now, totals.rate_before, "points", 1);
    made.push(tile("Success rate", format.percent(totals.rate), rate.value === null ? "no week before" : `${rate.text} points`, rate.tone, chart(totals.rate_days, LEAST.rate)));
  }
  if ("duration" in totals) {
    const took = format.change(totals.duration_now, totals.duration_before, "duration", -1);
    made.push(tile("Mean time to success", format.duration(totals.duration), against(took), took.tone, chart(totals.duration_days, LEAST.duration)));
  }
  const nulls = flows.reduce((sum, flow) => sum + flow.nulls, 0), absent = flows.filter((flow) => flow.no_data_since).length;
  if (made.length < 3) made.push(tile("Flows reporting", format.number(flows.length - absent), absent ? `of ${format.number(flows.length)}; ${absent} without data` : "all of them", absent ? "warn" : "flat"));
  if (made.length < 3) made.push(tile("Null figures", format.number(nulls), "expected, not reported", "flat"));
  made.push(tile("Figures restated", format.number(restated.figures), "among this week's", "flat", chart(restated.days, 0, true)));
  return el("div", { class: "tiles" }, made);
}

function tools(document, parameters) {
  const has = (measure) => (measure === "rate" || measure === "duration" ? measure in document.totals : true);
  const choices = MEASURES.filter(([measure]) => has(measure));
  let timer = 0;
  const search = el("input", { type: "search", id: "search", placeholder: "Search flows  /", "aria-label": "Search flows", maxlength: 100, size: 24, autocomplete: "off", spellcheck: "false",
    oninput: (event) => { clearTimeout(timer); const q = event.target.value; timer = setTimeout(() => set({ q: q || null }, { replace: true }), 80); } });
  search.value = parameters.q ?? "";
  return el("div", { class: "tools" }, search, segments("Measure", choices, document.measure, (measure) => set({ measure, sort: null })),
    el("span", { id: "shown", class: "quiet", role: "status" }));
}

// The columns of a measure: the change is the one by which flows are sorted.
function columns(document) {
  const flow = { key: "name", text: "Flow", value: (each) => (each.name ?? each.id).toLowerCase() };
  const total = { key: "total", text: "Total", value: (each) => each.total, cell: (each) => format.number(each.total) };
  const percent = changing("change", "Change", (each) => format.change(each.now, each.before, "percent"));
  percent.minor = document.measure !== "count"; // left out on a phone
  const chart = (text, values, change) => ({ key: "days", text, left: true, cell: (each) => spark(values(each), change?.(each), document) });
  const restated = { key: "restated", text: "Restated", value: (each) => each.restated, cell: (each) => each.restated || "" };
  const text = "Last 28 days";
  if (document.measure === "rate") {
    const change = (each) => format.change(each.rate_now, each.rate_before, "points", 1);
    return [flow, total, percent, { key: "rate", text: "Success rate", value: (each) => each.rate, cell: (each) => format.percent(each.rate) },
      changing("points", "Points", change), chart(text, (each) => each.rate_days ?? [], change), restated];
  }
  if (document.measure === "duration") {
    const change = (each) => format.change(each.duration_now, each.duration_before, "duration", -1);
    return [flow, total, percent, { key: "duration", text: "Mean time to success", value: (each) => each.duration, cell: (each) => format.duration(each.duration) },
      changing("took", "Change of time", change), chart(text, (each) => each.duration_days ?? [], change), restated];
  }
  if (document.measure === "share") {
    const largest = (each) => each.shares?.[0];
    return [flow, total, percent,
      { key: "outcome", text: "Largest outcomes", left: true, value: (each) => largest(each)?.[0].toLowerCase(), cell: outcomes },
      { key: "share", text: "Share", value: (each) => largest(each)?.[1], cell: (each) => format.percent(largest(each)?.[1]) },
      changing("points", "Points", (each) => format.change(largest(each)?.[1], largest(each)?.[2], "points")),
      chart(text, (each) => each.share_days ?? []), restated];
  }
  return [flow, total, percent, { key: "before", text: "Week before", value: (each) => each.before, cell: (each) => format.number(each.before) },
    chart(text, (each) => each.days), restated];
}

function changing(key, text, change) {
  return { key, text, change: true, value: (each) => change(each).value, cell: (each) => { const { text: words, tone } = change(each); return el("span", { class: tone }, words); } };
}

function outcomes(each) {
  const [first, ...others] = each.shares ?? [];
  if (!first) return "–";
  const title = others.map(([outcome, share]) => `${visible(outcome)} ${format.percent(share, 0)}`).join(", ");
  return el("span", { title }, el("span", { class: "share-name" }, name(first[0])), others.length ? el("span", { class: "tag" }, `+ ${format.percent(others[0][1], 0)}`) : "");
}

function spark(values, change, document) {
  const worse = change?.tone === "down" && Math.abs(change.value) >= 3;
  const known = values.filter((value) => value !== null);
  const label = known.length ? `${document.measure} by day, 28 days` : "no figures";
  return sparkline(values, { tone: worse ? "worse" : "", label, least: LEAST[document.measure] ?? 0 });
}

function sorting(document, parameters) {
  const all = columns(document), given = parameters.sort ?? "";
  const descending = given.startsWith("-"), key = given.replace(/^-/, "");
  const usual = all.find((column) => column.key === "points" || column.key === "took") ?? all.find((column) => column.key === "change");
  const column = all.find((each) => each.key === key && each.value);
  return column ? { all, column, descending } : { all, column: usual, descending: true, usual: true };
}

function sorted(document, parameters) {
  const { column, descending, usual } = sorting(document, parameters);
  const few = (each) => Math.min(each.now ?? 0, each.before ?? 0) < FEW;
  const value = (each) => { const found = column.value(each); return usual && found !== null && found !== undefined ? Math.abs(found) : found; };
  const label = (each) => each.name ?? each.id;
  return [...document.flows].sort((one, other) => {
    if (usual && few(one) !== few(other)) return few(one) ? 1 : -1;
    const [a, b] = [value(one), value(other)];
    if (a === b) return label(one).localeCompare(label(other));
    if (a === null || a === undefined) return 1;
    if (b === null || b === undefined) return -1;
    return (a < b ? -1 : 1) * (descending ? -1 : 1);
  });
}

const kind = (column) => (column.key === "days" ? "l spark-cell" : column.minor ? "minor" : column.left ? "l" : null);

function table(document, parameters) {
  const { all, column: by, descending, usual } = sorting(document, parameters);
  const head = all.map((column) => {
    const sort = column === by && !usual ? (descending ? "descending" : "ascending") : null;
    const next = column === by && !usual ? (descending ? column.key : `-${column.key}`) : column.key === "name" || column.left ? column.key : `-${column.key}`;
    const mark = sort ? (descending ? " ↓" : " ↑") : "";
    const inside = column.value ? el("button", { type: "button", id: `sort-${column.key}`, onclick: () => set({ sort: next }) }, column.text + mark) : column.text;
    return el("th", { scope: "col", class: kind(column), "aria-sort": sort }, inside);
  });
  const row = (each) => {
    const to = link("flow", { org: document.org, flow: each.id });
    const anchor = el("a", { href: to, "data-go": true, "data-row": true, title: visible(each.name ?? each.id) }, name(each.name ?? each.id));
    return el("tr", { "data-flow": each.id, onclick: (event) => { if (event.target.closest("a, button") || String(getSelection())) return; anchor.click(); } },
      el("th", { scope: "row" }, el("div", { class: "named" }, anchor, tags(each))),
      all.slice(1).map((column) => el("td", { class: kind(column) }, column.cell(each))));
  };
  const flows = sorted(document, parameters), body = el("tbody");
  rows = flows.map((each) => ({ row: null, text: `${each.name ?? ""} ${each.id}`.toLowerCase() }));
  const mine = rows;
  let drawn = 0;
  draw = (count = flows.length) => {
    const end = Math.min(flows.length, drawn + count), first = drawn;
    for (; drawn < end; drawn += 1) mine[drawn].row = row(flows[drawn]);
    body.append(...mine.slice(first, end).map((each) => each.row));
    if (drawn < flows.length) requestAnimationFrame(() => setTimeout(() => mine === rows && draw(PIECE))); // after the paint
  };
  draw(FIRST);
  const made = el("table", { class: "sticky" }, el("thead", {}, el("tr", {}, head)), body);
  return scrolling("Flows", made, "list");
}

function tags(each) {
  const made = [];
  if (each.no_data_since) made.push(el("span", { class: "tag warn" }, `no data since ${format.day(each.no_data_since)}`));
  else if (each.nulls) made.push(el("span", { class: "tag", title: "expected this week and not reported" }, `${format.number(each.nulls)} null`));
  if (each.deleted) made.push(el("span", { class: "tag" }, "deleted"));
  return made;
}

function filter(document, parameters) {
  const sought = (parameters.q ?? "").toLowerCase();
  if (sought) draw();
  let count = 0;
  for (const each of rows) {
    const matches = each.text.includes(sought);
    if (each.row) each.row.hidden = !matches;
    count += matches;
  }
  const order = sorting(document, parameters).usual ? ", most changed first" : "";
  byId("shown").textContent = sought ? (count ? `${format.number(count)} of ${many(rows.length, "flow")}` : "") : `${many(rows.length, "flow")}${order}`;
  byId("nothing")?.remove();
  byId("flows").firstChild.hidden = Boolean(sought) && !count;
  if (sought && !count) byId("flows").append(el("div", { id: "nothing", class: "card empty" }, el("b", {}, `No flow matches “${visible(parameters.q)}”`), el("button", { type: "button", onclick: () => set({ q: null }) }, "Show all flows")));
}
