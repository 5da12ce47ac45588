-- Months whose figures were removed from this database and stay in the warehouse: no export writes them.
CREATE TABLE flow_outcomes.pruned_month (
    org         text NOT NULL,
    granularity text NOT NULL,
    month       date NOT NULL CHECK (extract(day FROM month) = 1),   -- its first day, in UTC
    pruned_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org, granularity, month)
);
