-- The present names of outcomes, where the API knows them by id; an outcome that turns up later finds its own here.
CREATE TABLE flow_outcomes.outcome_title (
    org        text NOT NULL,
    outcome_id text NOT NULL,
    name       text NOT NULL,
    PRIMARY KEY (org, outcome_id)
);
CREATE INDEX outcome_by_id ON flow_outcomes.outcome (org, outcome_id) WHERE outcome_id IS NOT NULL;

-- Which part of a figure a row tells, where the API splits it by what was not asked for; the parts add up.
ALTER TABLE flow_outcomes.staging ADD COLUMN part text NOT NULL DEFAULT '';
