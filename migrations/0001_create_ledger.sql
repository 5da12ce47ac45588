-- Who works an org, what is owed and how far it is.
-- Every key begins with org: it is the column by which a distributed PostgreSQL would spread these tables.

CREATE SCHEMA IF NOT EXISTS flow_outcomes;

-- One row an org. A merge locks it, so that revisions are numbered and stamped in order, org by org;
-- a takeover raises the epoch under the same lock, and a merge under an older epoch writes nothing.
CREATE TABLE flow_outcomes.org (
    org             text PRIMARY KEY,
    epoch           bigint NOT NULL DEFAULT 0,
    revision        bigint NOT NULL DEFAULT 0,
    aliases_applied bigint NOT NULL DEFAULT 0   -- alias_guard.changes as of the last time they were applied
);

-- The heartbeat, apart from org: a renewal must never wait for a merge.
CREATE TABLE flow_outcomes.org_lease (
    org           text PRIMARY KEY,
    owner         text,          -- the process's application_name; null: given back in order
    owned_since   timestamptz,
    expires_at    timestamptz,
    given_back_at timestamptz,   -- when it last was, in order; until then its owner may have sent requests
    wanted_by     text,          -- a process that has fewer orgs and asks the owner for this one
    held_until    timestamptz,   -- a 429's Retry-After, kept over restarts
    breaker       text NOT NULL DEFAULT 'closed'   -- as its owner told it last, for those who only look
                  CHECK (breaker IN ('closed', 'half-open', 'open')),
    breaker_until timestamptz    -- open: when a probe may be sent
) WITH (fillfactor = 50);

CREATE TABLE flow_outcomes.extraction_window (
    org                   text NOT NULL,
    work                  text NOT NULL,            -- 'job:NAME' or 'ad hoc'
    job                   text,
    window_start          timestamptz NOT NULL,
    window_end            timestamptz NOT NULL,
    requested_granularity text NOT NULL,
    granularity           text NOT NULL,
    query_hash            text,
    state                 text NOT NULL DEFAULT 'pending'
                          CHECK (state IN ('pending', 'running', 'complete', 'failed')),
    attempts              integer NOT NULL DEFAULT 0,
    pages                 integer NOT NULL DEFAULT 0,
    rows                  bigint NOT NULL DEFAULT 0,
    rejected              bigint NOT NULL DEFAULT 0,
    last_error            text,
    due_at                timestamptz NOT NULL,
    completed_at          timestamptz,
    requests              integer NOT NULL DEFAULT 1,   -- ad hoc work: how often it was asked for,
    requests_begun        integer NOT NULL DEFAULT 0,   -- how many of these the last begun scan answers,
    requests_failed       integer NOT NULL DEFAULT 0,   -- the last failed one,
    requests_read         integer NOT NULL DEFAULT 0,   -- and the last stored one: no clocks are compared
    scan_number           bigint,                   -- of the last stored scan: the org's scans in the order they began
    flow_ids              text[],                   -- the flows that it asked for; null is all
    entries               bigint,                   -- entries in the last stored scan, to reckon pages with
    ask_alone             boolean NOT NULL DEFAULT false,  -- a fault in a page that it shared
    coarsened             boolean NOT NULL DEFAULT false,  -- the server refused it one step finer, once
    doubted_in            text,                     -- the cycle whose wholly empty scan is not believed yet
    PRIMARY KEY (org, work, window_start, window_end, requested_granularity),
    CHECK (window_start < window_end)
);
CREATE INDEX extraction_window_unfinished ON flow_outcomes.extraction_window (org, work)
    WHERE state <> 'complete';
CREATE INDEX extraction_window_asked ON flow_outcomes.extraction_window (org)
    WHERE job IS NULL AND requests > requests_begun;

-- Which queries came out too large, so that the next cycle asks neither them nor others of their size there.
CREATE TABLE flow_outcomes.query_cut (
    org         text NOT NULL,
    query_hash  text NOT NULL,
    granularity text NOT NULL,
    span_start  timestamptz NOT NULL,
    span_end    timestamptz NOT NULL,
    by_flow     boolean NOT NULL,                   -- flows were listed
    half        bigint NOT NULL,                    -- the size of its larger half: buckets, for each flow listed
    cut_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org, query_hash)
);

-- Which ad_hoc entries of the configuration have been asked for, by name and content.
CREATE TABLE flow_outcomes.ad_hoc_entry (
    org          text NOT NULL,
    name         text NOT NULL,
    content      text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org, name, content)
);
