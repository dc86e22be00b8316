-- Who asked for which change, when and why.
CREATE TABLE audit (
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,               -- model::Actor
  change TEXT NOT NULL,              -- the name of a model::Change
  build_id INTEGER,                  -- NULL when it is no change of a build
  evaluation_id INTEGER,             -- the first one that needed the build
  specification_id INTEGER,          -- the one to which the build or evaluation belongs
  result TEXT NOT NULL,              -- what the change did, in words
  reason TEXT NOT NULL,              -- in the actor's words; may be empty
  CONSTRAINT "somebody asked" CHECK (actor <> ''),
  CONSTRAINT "a change is of something"
    CHECK (build_id IS NOT NULL OR evaluation_id IS NOT NULL OR specification_id IS NOT NULL)
) STRICT;
