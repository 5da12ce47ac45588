-- The prune date of an org, and what its absence rules need of the months that were removed.

-- Buckets and windows that start before it are not stored, not due and not missing. It is the start of a month in UTC
-- and never goes back. A merge reads it under the lock of this row.
ALTER TABLE flow_outcomes.org ADD COLUMN pruned_before timestamptz;

-- The end of the last removed bucket in which a series had a figure. An outcome stays expected as if the figure were
-- still there, so that pruning changes nothing of later buckets.
CREATE TABLE flow_outcomes.pruned_series (
    org         text NOT NULL,
    granularity text NOT NULL,
    series_no   bigint NOT NULL,
    seen_to     timestamptz NOT NULL,
    PRIMARY KEY (org, series_no, granularity)
);
