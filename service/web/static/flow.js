// One flow: its outcomes on one time axis, their sums in a table, and how they were at any instant.

import * as compare from "./compare.js";
import { area } from "./charts.js";
import { byId, copy, copyButton, el, empty, failure, loading, many, name, scrolling, segments, visible } from "./dom.js";
import * as format from "./format.js";
import { kept, load, url } from "./net.js";
import { addAlias } from "./shell.js";
import { query } from "./sql.js";
import { go, link, set } from "./state.js";
import * as stack from "./stack.js";

const SPANS = {
  hourly: [[2, "2 days"], [7, "7 days"], [31, "31 days"]],
  daily: [[30, "30 days"], [90, "90 days"], [365, "a year"], [1096, "3 years"]],
  monthly: [[366, "a year"], [1096, "3 years"], [2557, "7 years"]],
};
const DIMENSIONS = { flowVersion: "version", flowType: "type", mediaType: "medium", messageType: "message type", divisionId: "division", direction: "direction", startingLanguage: "starting language", endingLanguage: "ending language", entryReason: "entry reason", entryType: "entry type" };
const USUAL = { hourly: 7, daily: 90, monthly: 1096 };
const NO_SUGGESTIONS = { suggestions: [] };
let shown = null; // the documents that are drawn

// What the URL requests, as the parameters of the server.
function wanted(parameters) {
  const granularity = parameters.by in SPANS ? parameters.by : "daily";
  const days = Number(parameters.days) || USUAL[granularity];
  const zone = kept("api/now")?.orgs[parameters.org]?.timezone ?? "UTC";
  const end = parameters.to ?? format.shift(format.dateOf(Date.now(), zone), 1);
  const first = parameters.from ?? format.shift(end, -days);
  return { org: parameters.org, flow: parameters.flow, granularity, from: first, to: end };
}

const asOf = (parameters) => ({ ...wanted(parameters), at: parameters.at, split: parameters.split });
const other = (parameters) => ({ ...wanted(parameters), at: parameters.vs === "now" ? null : parameters.vs, split: parameters.split });
const difference = (parameters) => ({ ...wanted(parameters), at: parameters.at, with: parameters.vs === "now" ? null : parameters.vs });

export async function show(main, parameters) {
  shown = null;
  if (!parameters.flow) return choose(main, parameters);
  main.replaceChildren(el("div", { id: "flow-view" }, kept("api/flow", asOf(parameters)) ? [] : [el("h1", {}, "Flow"), loading()]));
  return update(parameters);
}

export async function refresh(parameters) {
  if (!parameters.flow) return undefined;
  return update(parameters);
}

export async function update(parameters) {
  if (!parameters.flow) return choose(byId("main"), parameters);
  const comparing = Boolean(parameters.vs);
  const requests = [
    load("api/flow", asOf(parameters)), load("api/instants", wanted(parameters)),
    load("api/suggestions", { org: parameters.org, flow: parameters.flow }).catch(() => NO_SUGGESTIONS),
    comparing ? load("api/flow", other(parameters)) : null, comparing ? load("api/differences", difference(parameters)) : null,
  ];
  try {
    const [one, instants, suggestions, second, differences] = await Promise.all(requests);
    const documents = comparing ? { is: second, was: one, differences } : { is: one };
    render({ ...documents, instants: instants.instants, suggestions: suggestions.suggestions }, parameters);
  } catch (error) {
    if (!shown) byId("flow-view")?.replaceChildren(el("h1", {}, "Flow"), failure(error));
    throw error;
  }
  return undefined;
}

function render(documents, parameters) {
  const root = byId("flow-view"), { is } = documents;
  if (!root) return;
  const key = JSON.stringify(parameters);
  const same = shown && shown.key === key && ["is", "was", "differences", "instants", "suggestions"].every((each) => shown[each] === documents[each]);
  if (same) return;
  shown = { ...documents, key };
  if (!is.flow) {
    root.replaceChildren(el("h1", {}, visible(parameters.flow)), empty("This flow is not known", `Nothing of ${parameters.org} is stored under this id. `, el("a", { href: link("flow", { org: parameters.org }), "data-go": true }, "Choose a flow")));
    return;
  }
  document.title = `${visible(is.flow.name ?? is.flow.flow_id)} · ${parameters.org} · flow-outcomes`;
  const focused = document.activeElement?.id;
  stack.remove();
  root.replaceChildren(
    ...heading(is, parameters), tools(is, parameters), ...documents.suggestions.map((each) => suggestion(each, is.timezone)),
    ...[compare.controls(documents, parameters)].flat(),
    ...(is.series.length ? figures(documents, parameters) : [empty("No figures in this span", "Choose another span, or hours, days or months, whichever a job extracts.")]),
    buttons(parameters));
  if (is.series.length) stack.draw(byId("total"), byId("total-legend"), is);
  if (focused) byId(focused)?.focus({ preventScroll: true });
}

function heading({ flow, outcomes, dimension, timezone }, parameters) {
  const facts = [outcomes ? many(outcomes, dimension ? DIMENSIONS[dimension] ?? dimension : "outcome") : null, format.flowType(flow.flow_type), flow.division_name, flow.deleted ? "deleted in Genesys Cloud" : null, parameters.org, timezone];
  return [
    el("p", { class: "sub crumbs no-print" }, el("a", { href: link("overview", { org: parameters.org }), "data-go": true }, "Overview"), " / ", el("a", { href: link("flow", { org: parameters.org }), "data-go": true }, "Flows")),
    el("h1", {}, name(flow.name ?? flow.flow_id)),
    el("p", { class: "sub", title: visible(flow.flow_id) }, facts.filter(Boolean).map((fact, place) => [place ? " · " : "", name(fact)])),
  ];
}

function tools(is, parameters) {
  const { granularity } = wanted(parameters);
  const by = segments("Buckets", [["hourly", "Hour"], ["daily", "Day"], ["monthly", "Month"]], granularity, (value) => set({ by: value, days: null, from: null, to: null }));
  const days = Number(parameters.days) || USUAL[granularity];
  const choices = SPANS[granularity].map(([value, text]) => el("option", { value, selected: !parameters.from && value === days }, text));
  if (parameters.from || parameters.to) choices.push(el("option", { value: "", selected: true }, `${format.day(is.from)} to ${format.day(format.shift(is.to, -1))}`));
  const splits = is.dimensions.length ? el("label", {}, "By", el("select", { id: "split", "aria-label": "Split by", onchange: (event) => set({ split: event.target.value || null }) },
    [["", "outcome"], ...is.dimensions.map((each) => [each, DIMENSIONS[each] ?? each])].map(([value, text]) => el("option", { value, selected: value === (is.dimension ?? "") }, visible(text))))) : "";
  return el("div", { class: "tools" }, by, splits,
    el("label", {}, "Last", el("select", { id: "span", "aria-label": "Span", onchange: (event) => set({ days: event.target.value, from: null, to: null }) }, choices)));
}

// Until when and how often the old name was reported, and since when the new one.
function evidence(each, zone) {
  const unit = each.granularity === "monthly" ? "month" : "day", day = (instant) => format.day(format.dateOf(instant, zone));
  const mean = (value) => `${value.toLocaleString("en", { maximumFractionDigits: 1 })} a ${unit}`;
  return `${many(each.days_before, unit)} until ${day(each.last_seen)}, ${mean(each.mean_before)}; ${many(each.days_after, unit)} from ${day(each.first_seen)}, ${mean(each.mean_after)}.`;
}

export function suggestion(each, zone, place = "") {
  const command = addAlias(each);
  const sure = typeof each.confidence === "number" ? ` Confidence ${format.percent(each.confidence, 0)}.` : "";
  return el("section", { class: "note", "aria-label": "Suggested alias" }, el("div", {}, place, el("b", {}, name(each.old_name)), " ended and ", el("b", {}, name(each.new_name)), ` began. The same outcome?${sure}`, el("p", { class: "quiet" }, evidence(each, zone)), el("code", {}, visible(command))), copyButton(command));
}

const colour = (series) => (series.colour === null ? "c-rest" : `c${series.colour % 10}`);
const title = (series, is) => (series.name === null ? `${many(is.outcomes - is.series.length + 1, "other")} together` : series.name);
const sum = (values) => { const known = (values ?? []).filter((value) => value !== null); return known.length ? known.reduce((all, value) => all + value, 0) : null; };

function figures(documents, parameters) {
  const { is, was, differences } = documents, before = new Map((was?.series ?? []).map((each) => [each.name, each]));
  const total = sum(is.series.map((each) => sum(each.counted)));
  const labels = is.starts.map((start) => format.bucket(start, is.granularity, is.timezone));
  const charts = is.series.map((series) => small(series, before.get(series.name), total, labels, is));
  return [
    el("section", { class: "card", "aria-label": "All outcomes" }, el("h2", { class: "unseen" }, "All outcomes, stacked"), el("div", { id: "total" }), el("ul", { id: "total-legend", class: "legend", "aria-label": "Outcomes" })),
    el("h2", {}, "Each outcome"), el("div", { class: "multi" }, charts),
    el("h2", {}, parameters.vs ? "Sums, then and now" : "Sums"), table(documents, total),
    differences ? compare.list(documents, parameters) : [],
    allFigures(is, labels),
  ].flat();
}

function small(series, was, total, labels, is) {
  const label = `${visible(title(series, is))}: ${format.number(sum(series.counted))} over ${many(labels.length, "bucket")}${series.nulls.length ? `, ${series.nulls.length} null` : ""}`;
  const share = total ? `${format.percent(sum(series.counted) / total)} of the flow` : "";
  const reading = el("span", { class: "reading", hidden: true }), text = el("span", {}, share);
  const chart = el("div", { class: `chart ${colour(series)}` }, area(series.counted, { nulls: series.nulls, was: was?.counted ?? null, label }), reading);
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect(), place = Math.round(((event.clientX - box.left) / box.width) * (labels.length - 1));
    if (!(place in labels)) return;
    reading.hidden = false;
    reading.style.left = `${(place / Math.max(1, labels.length - 1)) * 100}%`;
    text.textContent = `${labels[place]}: ${figure(series, place)}`;
  });
  chart.addEventListener("pointerleave", () => { reading.hidden = true; text.textContent = share; });
  const axis = el("p", { class: "axis", "aria-hidden": "true" }, [labels[0], labels.at(-1)].map((each) => el("span", {}, each)));
  return el("section", { class: "card" }, el("h3", {}, el("span", { title: visible(title(series, is)) }, el("span", { class: `dot ${colour(series)}`, "aria-hidden": "true" }), name(title(series, is))), text), chart, axis);
}

// A reported zero is 0, whatever its share; null is null; a bucket without a figure is blank.
export function figure(series, place) {
  if (series.counted[place] === null) return series.nulls.includes(place) ? "null" : "";
  const share = series.shares[place];
  return `${format.number(series.counted[place])}${share === null ? "" : ` (${format.percent(share)})`}`;
}

function table({ is, was }, total) {
  const has = (part) => is.series.some((series) => sum(series[part]) !== null);
  const split = has("successes"), timed = has("duration_sum_ms"), before = new Map((was?.series ?? []).map((each) => [each.name, each]));
  const ratio = (part, whole) => (part === null || !whole ? null : part / whole);
  const earlier = is.series.some((each) => each.before !== null);
  const head = ["Count", "Share", ...(split ? ["Success rate"] : []), ...(timed ? ["Mean time to success"] : []), ...(earlier ? ["Change"] : [])];
  const names = [...is.series.map((each) => each.name), ...[...before.keys()].filter((each) => !is.series.some((series) => series.name === each))];
  const body = names.map((each) => {
    const series = is.series.find((one) => one.name === each), then = before.get(each);
    const count = sum(series?.counted), former = sum(then?.counted);
    const cells = [was && former !== count ? el("span", {}, el("s", {}, format.number(former)), " → ", el("mark", {}, format.number(count))) : format.number(count), format.percent(ratio(count, total))];
    if (split) cells.push(format.percent(ratio(sum(series?.successes), sum(series?.split))));
    if (timed) cells.push(format.duration(ratio(sum(series?.duration_sum_ms), sum(series?.duration_count))));
    if (earlier) cells.push(each === null ? "" : el("span", { class: "flat" }, format.change(count, series?.before ?? null, "percent").text));
    const shown = series ?? then;
    return el("tr", {}, el("th", { scope: "row" }, el("span", { class: `dot ${colour(shown)}`, "aria-hidden": "true" }), name(title(shown, is))), cells.map((cell) => el("td", {}, cell)));
  });
  const made = el("table", { class: "sticky", id: "sums" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Outcome"), head.map((text) => el("th", { scope: "col", title: text === "Change" ? "against as many buckets before these" : null }, text)))), el("tbody", {}, body));
  return scrolling("Sums of each outcome", made);
}

function allFigures(is, labels) {
  const box = el("div", {});
  const details = el("details", { id: "figures", ontoggle: () => {
    if (!details.open || box.firstChild) return;
    const head = el("tr", {}, el("th", { scope: "col" }, { hourly: "Hour", daily: "Day", monthly: "Month" }[is.granularity]), is.series.map((series) => el("th", { scope: "col" }, name(title(series, is)))));
    const body = labels.map((label, place) => el("tr", { "data-start": is.starts[place] }, el("th", { scope: "row" }, label), is.series.map((series) => el("td", {}, figure(series, place))))).reverse();
    box.append(scrolling("Every figure", el("table", { class: "sticky" }, el("thead", {}, head), el("tbody", {}, body)), "cap"));
  } }, el("summary", {}, "Every figure as a table"), box);
  return details;
}

function buttons(parameters) {
  const file = url("api/figures.csv", { ...wanted(parameters), at: parameters.at, formulas: "escaped" });
  return el("div", { class: "tools no-print" }, el("a", { class: "button", href: file, download: "", id: "csv" }, "Download CSV"),
    el("button", { type: "button", id: "copy-sql", onclick: () => copy(query(wanted(parameters), parameters, shown.is), "SQL copied") }, "Copy SQL"),
    el("button", { type: "button", onclick: () => copy(location.href, "Link copied") }, "Copy link"));
}

async function choose(main, parameters) {
  const input = el("input", { type: "search", id: "search", placeholder: "Search flows  /", "aria-label": "Search flows", maxlength: 100, size: 30, autocomplete: "off", spellcheck: "false" });
  const list = el("div", { id: "choices" }, loading());
  input.value = parameters.q ?? "";
  let timer = 0;
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => { go("flow", { org: parameters.org, q: input.value || null }, { replace: true }); }, 120); });
  const existing = byId("choices") ? byId("search") : null;
  if (!existing) main.replaceChildren(el("h1", {}, "Flows"), el("p", { class: "sub" }, parameters.org), el("div", { class: "tools" }, input), list);
  const target = byId("choices");
  try {
    const { flows, more } = await load("api/flows", { org: parameters.org, q: parameters.q, limit: 500 });
    if (!flows.length) target.replaceChildren(parameters.q ? empty(`No flow matches “${visible(parameters.q)}”`, "Search by a part of its name or id.") : empty("No flow is known yet", "The names appear with the first extraction."));
    else {
      const rows = flows.map((each) => el("tr", {}, el("th", { scope: "row" }, el("a", { href: link("flow", { org: parameters.org, flow: each.flow_id }), "data-go": true, "data-row": true }, name(each.name ?? each.flow_id))),
        el("td", { class: "l flat" }, visible([format.flowType(each.flow_type), each.division_name, each.deleted ? "deleted" : null].filter(Boolean).join(" · ")))));
      target.replaceChildren(scrolling("Flows", el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Flow"), el("th", { scope: "col", class: "l" }, "Kind"))), el("tbody", {}, rows)), "list"),
        ...(more ? [el("p", { class: "sub" }, "Only the first 500 are listed; search for the others.")] : []));
    }
  } catch (error) {
    target.replaceChildren(failure(error));
  }
}
