// One day of a job: its windows and their restatements.

import { LETTERS, STATE_NAMES, byId, el, load, many, mark, table, visible, when } from "./dom.js";

let shown = null; // { org, job, day }
let origin = null; // gets the focus back

export function start() {
  byId("day-close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && shown) close();
  });
}

export async function open(org, job, day, from) {
  shown = { org, job, day };
  origin = from;
  document.querySelectorAll("td[aria-selected]").forEach((cell) => cell.removeAttribute("aria-selected"));
  if (from?.tagName === "TD") from.setAttribute("aria-selected", "true");
  byId("day").hidden = false;
  byId("day-title").textContent = visible(`${org} · ${job} · ${day}`);
  byId("day-body").replaceChildren(el("p", { class: "quiet" }, "…"));
  byId("day-title").focus({ preventScroll: true });
  byId("day").scrollIntoView({ block: "nearest" });
  try {
    await refresh(true);
  } catch (error) {
    byId("day-body").replaceChildren(el("p", { class: "trouble" }, visible(error.message)));
  }
  byId("day").scrollIntoView({ block: "nearest" });
}

function close() {
  shown = null;
  byId("day").hidden = true;
  document.querySelectorAll("td[aria-selected]").forEach((cell) => cell.removeAttribute("aria-selected"));
  origin?.focus();
}

export async function refresh(always = false) {
  if (!shown) return;
  const requested = shown;
  const { document: data, changed } = await load("api/day", requested);
  if (requested !== shown || !(changed || always)) return;
  const body = [];
  body.push(data.windows.length ? windows(data) : el("p", {}, "No windows on this day."));
  for (const each of data.windows.filter((window) => window.last_error)) {
    body.push(el("p", { class: "trouble" }, visible(`${when(each.window_start)}: ${each.last_error}`)));
  }
  body.push(el("h3", {}, data.restatements ? many(data.restatements, "restatement") : "No restatements"));
  if (data.restated.length) body.push(restatements(data.restated));
  byId("day-body").replaceChildren(...body);
}

function windows(data) {
  const headings = ["window", "state", { text: "attempts", number: true }, { text: "pages", number: true },
    { text: "rows", number: true }, { text: "rejected", number: true }, { text: "due", when: true }, { text: "stored", when: true }];
  const rows = data.windows.map((each) => ({
    cells: [
      `${when(each.window_start)} – ${when(each.window_end)}`,
      el("span", {}, mark(LETTERS[each.state] ?? "C"), ` ${STATE_NAMES[each.state] ?? each.state}`),
      each.attempts, each.pages, each.rows, each.rejected, when(each.due_at), when(each.completed_at),
    ],
  }));
  return table(headings, rows, "Windows of this day");
}

export function restatements(items, withOrg = false, fresh = () => false) {
  const headings = [{ text: "restated", when: true }, ...(withOrg ? ["org"] : []), "flow", { text: "bucket", when: true }, "outcome",
    { text: "from", number: true }, { text: "to", number: true }];
  const rows = items.map((each) => ({
    fresh: fresh(each),
    cells: [
      when(each.restated_at), ...(withOrg ? [each.org] : []), each.flow_name ?? each.flow_id,
      `${when(each.bucket_start).replace(" 00:00:00Z", "")} ${each.granularity}`, each.outcome_name,
      each.old_count ?? "null", each.new_count ?? "null",
    ],
  }));
  return table(headings, rows, "Restatements");
}
