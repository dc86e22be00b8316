-- Specifications belong to projects, as jobsets of Hydra do. Those of before belong to `main`.
CREATE TABLE specification_2 (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  -- Before the definition, so that reading it does not read the pages of a long definition.
  project TEXT NOT NULL GENERATED ALWAYS AS (ifnull(json_extract(definition, '$.project'), 'main')) STORED,
  definition TEXT NOT NULL,          -- JSON of model::Specification
  created_at INTEGER NOT NULL,
  removed_at INTEGER NOT NULL,       -- 0 while it is active; its builds outlive it
  looked_at INTEGER NOT NULL,
  look_error TEXT NOT NULL,          -- empty when the last look went well
  look_failures INTEGER NOT NULL,    -- in a row
  next_look_at INTEGER NOT NULL,
  look_wanted_at INTEGER NOT NULL,   -- when somebody last asked for a look; 0 when nobody did
  look_answered_at INTEGER NOT NULL, -- look_wanted_at as it was when the last look began that has ended
  -- Of what the inputs were at the last look that went well; NULL before. Not always the newest: a
  -- branch may be set back.
  evaluation_id INTEGER REFERENCES evaluation (id),
  CONSTRAINT "the definition is JSON" CHECK (json_valid(definition)),
  CONSTRAINT "failures are counted if and only if there is an error"
    CHECK ((look_failures > 0) = (look_error <> ''))
) STRICT;
INSERT INTO specification_2 (id, name, definition, created_at, removed_at, looked_at, look_error,
  look_failures, next_look_at, look_wanted_at, look_answered_at, evaluation_id)
SELECT id, name, definition, created_at, removed_at, looked_at, look_error, look_failures, next_look_at,
  look_wanted_at, look_answered_at, evaluation_id FROM specification ORDER BY id;
DROP TABLE specification;
ALTER TABLE specification_2 RENAME TO specification;
