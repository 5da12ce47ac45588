-- The present names of outcomes and milestones that the API identifies by id. One that is reported later finds its name
-- here.
CREATE TABLE flow_outcomes.outcome_title (
    org        text NOT NULL,
    outcome_id text NOT NULL,
    name       text NOT NULL,
    measure    flow_outcomes.measure NOT NULL DEFAULT 'outcomes',
    PRIMARY KEY (org, outcome_id, measure)
);
CREATE INDEX series_by_source ON flow_outcomes.series (org, outcome_id) WHERE outcome_id IS NOT NULL;

-- Which part of a figure a row is, where the API splits figures by a dimension that was not requested; parts add up.
ALTER TABLE flow_outcomes.staging ADD COLUMN part text NOT NULL DEFAULT '';
