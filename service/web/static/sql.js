// The SQL that gives what a flow's view shows.

const text = (value) => `'${String(value).replaceAll("'", "''")}'`;

export function query({ org, flow, granularity }, { at, vs }, { starts, from, to, timezone }) {
  const local = (date) => `timestamp ${text(date)} AT TIME ZONE ${text(timezone)}`;
  const first = starts.length ? `timestamptz ${text(new Date(starts[0] * 1000).toISOString())}` : local(from);
  const where = `org = ${text(org)} AND flow_id = ${text(flow)} AND granularity = ${text(granularity)}\n  AND bucket_start >= ${first} AND bucket_start < ${local(to)}`;
  const source = (instant) => (instant && instant !== "now" ? `flow_outcomes.flow_outcome_as_of(${text(instant)})` : "flow_outcomes.flow_outcome");
  if (!vs) return `SELECT *\nFROM ${source(at)}\nWHERE ${where}\nORDER BY bucket_start, outcome_name;\n`;
  const part = (instant) => `(SELECT * FROM ${source(instant)}\nWHERE ${where})`;
  return `SELECT bucket_start, outcome_name, was.outcome_count AS was, present.outcome_count AS "is"\nFROM ${part(at)} was\nFULL JOIN ${part(vs)} present\n  USING (org, flow_id, granularity, bucket_start, outcome_name)\nWHERE was.outcome_count IS DISTINCT FROM present.outcome_count\nORDER BY bucket_start DESC, outcome_name;\n`;
}
