-- Evaluations can be kept against retention, and canceled.
-- Evaluations that retention does not delete, because somebody said so.
CREATE TABLE kept_evaluation (
  evaluation_id INTEGER PRIMARY KEY REFERENCES evaluation (id)
) STRICT;

-- Evaluations that want no builds any more. A build that no other evaluation wants is canceled, a few at
-- a time: what a killed server left is canceled by the next one.
CREATE TABLE withdrawn_evaluation (
  evaluation_id INTEGER PRIMARY KEY REFERENCES evaluation (id),
  -- The evaluation that superseded it; NULL: it was canceled on request.
  successor INTEGER
) STRICT;
