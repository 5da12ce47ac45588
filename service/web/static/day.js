// One day of a job: its windows, and what was restated of them.

import { LETTERS, ask, byId, el, many, mark, table, visible, when } from "./dom.js";

let shown = null; // { org, job, day }
let origin = null; // where the focus goes back to

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
  const asked = shown;
  const { document: told, changed } = await ask("/api/day", asked);
  if (asked !== shown || !(changed || always)) return;
  const body = [];
  body.push(told.windows.length ? windows(told) : el("p", {}, "Nothing is owed for this day."));
  for (const each of told.windows.filter((window) => window.last_error)) {
    body.push(el("p", { class: "trouble" }, visible(`${when(each.window_start)}: ${each.last_error}`)));
  }
  body.push(el("h3", {}, told.restatements ? many(told.restatements, "restatement") : "Nothing was restated"));
  if (told.restated.length) body.push(restatements(told.restated));
  byId("day-body").replaceChildren(...body);
}

function windows(told) {
  const headings = ["window", "state", { text: "attempts", number: true }, { text: "pages", number: true },
    { text: "rows", number: true }, { text: "rejected", number: true }, { text: "due", when: true }, { text: "stored", when: true }];
  const rows = told.windows.map((each) => ({
    cells: [
      `${when(each.window_start)} – ${when(each.window_end)}`,
      el("span", {}, mark(LETTERS[each.state] ?? "C"), ` ${each.state === "doubted" ? "complete, in doubt" : each.state}`),
      each.attempts, each.pages, each.rows, each.rejected, when(each.due_at), when(each.completed_at),
    ],
  }));
  return table(headings, rows, "Windows of this day");
}

export function restatements(found, withOrg = false, fresh = () => false) {
  const headings = [{ text: "restated", when: true }, ...(withOrg ? ["org"] : []), "flow", { text: "bucket", when: true }, "outcome",
    { text: "from", number: true }, { text: "to", number: true }];
  const rows = found.map((each) => ({
    fresh: fresh(each),
    cells: [
      when(each.restated_at), ...(withOrg ? [each.org] : []), each.flow_name ?? each.flow_id,
      `${when(each.bucket_start).replace(" 00:00:00Z", "")} ${each.granularity}`, each.outcome_name,
      each.old_count ?? "null", each.new_count ?? "null",
    ],
  }));
  return table(headings, rows, "Restatements");
}
