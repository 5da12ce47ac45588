-- Orgs and their leases, and the ledger of windows.
-- Every key begins with org: orgs share nothing, and the rows of one are found together.

CREATE SCHEMA IF NOT EXISTS flow_outcomes;

-- One row per org. A merge locks it, so revisions are numbered and stamped in order within an org. A takeover raises
-- the epoch under the same lock, and a merge under an older epoch writes nothing.
CREATE TABLE flow_outcomes.org (
    org             text PRIMARY KEY,
    epoch           bigint NOT NULL DEFAULT 0,
    revision        bigint NOT NULL DEFAULT 0,
    aliases_applied bigint NOT NULL DEFAULT 0   -- alias_guard.changes when the aliases were last applied
);

-- The lease of an org. A table of its own, so that a renewal never waits for a merge.
CREATE TABLE flow_outcomes.org_lease (
    org           text PRIMARY KEY,
    owner         text,          -- the process's application_name; null: released
    owned_since   timestamptz,
    expires_at    timestamptz,
    released_at   timestamptz,   -- when it was last released; until then its owner may have sent requests
    wanted_by     text,          -- a process that has fewer orgs and requests this one
    paused_until  timestamptz,   -- the end of a 429's Retry-After, for restarts too
    breaker       text NOT NULL DEFAULT 'closed'   -- as its owner last reported it
                  CHECK (breaker IN ('closed', 'half-open', 'open')),
    breaker_until timestamptz    -- open: when a probe may be sent
) WITH (fillfactor = 50);

-- How long an org keeps its data, as its API last said; an org that is not listed did not say.
CREATE TABLE flow_outcomes.org_retention (
    org  text PRIMARY KEY,
    days integer NOT NULL CHECK (days > 0)
);

CREATE TABLE flow_outcomes.extraction_window (
    org                   text NOT NULL,
    work                  text NOT NULL,            -- the stream: 'job:NAME' or 'ad hoc'
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
    requests              integer NOT NULL DEFAULT 1,   -- ad hoc windows: how often it was requested;
    requests_begun        integer NOT NULL DEFAULT 0,   -- how many of these the last started scan answers,
    requests_failed       integer NOT NULL DEFAULT 0,   -- the last failed one,
    requests_read         integer NOT NULL DEFAULT 0,   -- and the last stored one; no clocks are compared
    scan_number           bigint,                   -- of the last stored scan; scans of an org are numbered as they begin
    flow_ids              text[],                   -- the flows that it requested; null: all
    entries               bigint,                   -- entries of the last stored scan, to estimate pages
    isolated              boolean NOT NULL DEFAULT false,  -- requested alone: it shared an invalid page, or was refused alone
    coarsened             boolean NOT NULL DEFAULT false,  -- the server rejected it one step finer
    doubted_in            text,                     -- the cycle of an empty scan that is not confirmed yet
    kept_stored           boolean NOT NULL DEFAULT false,  -- older than the retention: last_error is a note, no error
    measure               text NOT NULL DEFAULT 'outcomes'
                          CHECK (measure IN ('outcomes', 'executions', 'milestones')),
    PRIMARY KEY (org, work, window_start, window_end, requested_granularity, measure),
    CHECK (window_start < window_end)
);
CREATE INDEX extraction_window_unfinished ON flow_outcomes.extraction_window (org, work)
    WHERE state <> 'complete';
CREATE INDEX extraction_window_requested ON flow_outcomes.extraction_window (org)
    WHERE job IS NULL AND requests > requests_begun;

-- The deep lookback of a job: when its last pass was complete, and the pass in progress.
CREATE TABLE flow_outcomes.deep_pass (
    org          text NOT NULL,
    work         text NOT NULL,
    completed_at timestamptz,
    from_scan    bigint,        -- windows whose scan_number is higher have been read; null: no pass is in progress
    PRIMARY KEY (org, work)
);

-- Queries that were too large, so that the next cycle sends neither them nor others of their size.
CREATE TABLE flow_outcomes.query_split (
    org         text NOT NULL,
    api         text NOT NULL,
    query_hash  text NOT NULL,
    granularity text NOT NULL,
    span_start  timestamptz NOT NULL,
    span_end    timestamptz NOT NULL,
    by_flow     boolean NOT NULL,                   -- the query listed flows
    half        bigint NOT NULL,                    -- the size of its larger half: buckets times listed flows
    split_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org, query_hash)
);

-- How wide a query may be, in buckets, where a gateway or the API refused wider ones; kept for seven days.
CREATE TABLE flow_outcomes.query_width (
    org         text NOT NULL,
    api         text NOT NULL,
    granularity text NOT NULL,
    served      integer,                            -- the widest that was served, of those below refused
    refused     integer,                            -- the narrowest that was refused
    learned_at  timestamptz NOT NULL,
    first_in    text,                               -- the cycle in which one bucket was refused: the next begins with one window
    PRIMARY KEY (org, api, granularity)
);

-- Entries of ad_hoc in the configuration that were requested, by name and content.
CREATE TABLE flow_outcomes.ad_hoc_entry (
    org          text NOT NULL,
    name         text NOT NULL,
    content      text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org, name, content)
);

-- What other processes request of an org's owner, by kind: a run of what is due ('run', as SIGUSR1 starts one), or one
-- slot of the limit that the owner leaves out ('slot', for the token that check requests). Each request is counted.
CREATE TABLE flow_outcomes.owner_request (
    org         text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('run', 'slot')),
    requested   bigint NOT NULL DEFAULT 0,   -- how many requests were made,
    begun       bigint NOT NULL DEFAULT 0,   -- the last one that an owner began to answer,
    begun_epoch bigint,                      -- under which epoch of the org,
    finished    bigint NOT NULL DEFAULT 0,   -- and the last one that is answered or withdrawn
    unfinished  bigint NOT NULL DEFAULT 0,   -- run: windows that were due in the last answered one and are not complete
    PRIMARY KEY (org, kind)
);
