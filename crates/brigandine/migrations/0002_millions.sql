-- Builds by a short key instead of two texts, imported builds, counts of builds, and job names that
-- imported evaluations have twice. The indexes follow, one transaction each: see store/schema.rs.
-- `derivation_key` is a function of the program, there for migrations alone.
CREATE TABLE build_2 (
  id INTEGER PRIMARY KEY,
  derivation TEXT NOT NULL,
  -- The first eight bytes of the SHA-256 of the derivation after its last slash: an index of whole
  -- paths would be a tenth of the file. Equal keys are told apart by the derivation.
  derivation_key INTEGER NOT NULL,
  specification_id INTEGER NOT NULL REFERENCES specification (id),
  evaluation_id INTEGER NOT NULL REFERENCES evaluation (id),
  job TEXT NOT NULL,
  system TEXT NOT NULL,
  nix_name TEXT NOT NULL,
  priority INTEGER NOT NULL,
  -- -2 scheduled, -1 started, 0 succeeded, 1 failed, 2 failed-dependency, 3 failed-other,
  -- 4 canceled
  status INTEGER NOT NULL,
  weather INTEGER NOT NULL,          -- -1 unknown, 0 new-success, 1 new-failure,
                                     -- 2 still-succeeding, 3 still-failing
  backend INTEGER NOT NULL,          -- 0 `command`, 1 none that this server has (imported)
  attempt INTEGER NOT NULL,          -- the number of the last start
  losses INTEGER NOT NULL,           -- starts whose worker vanished
  waiting INTEGER NOT NULL,          -- dependencies that have not succeeded
  message TEXT NOT NULL,
  timeout_s INTEGER NOT NULL,        -- 0: the server's default
  max_silent_s INTEGER NOT NULL,     -- 0: the server's default
  submitted_at INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  stopped_at INTEGER NOT NULL,
  log_path TEXT NOT NULL,
  log_bytes INTEGER NOT NULL,
  log_digest TEXT NOT NULL,
  CONSTRAINT "the status is known" CHECK (status BETWEEN -2 AND 4),
  CONSTRAINT "finished if and only if dated" CHECK ((status >= 0) = (stopped_at > 0)),
  CONSTRAINT "a started build has an attempt" CHECK (status <> -1 OR attempt > 0),
  CONSTRAINT "nothing starts before its dependencies" CHECK (status <> -1 OR waiting = 0),
  CONSTRAINT "waiting is a count" CHECK (waiting >= 0),
  CONSTRAINT "the backend is known" CHECK (backend BETWEEN 0 AND 1)
) STRICT;
INSERT INTO build_2 (id, derivation, derivation_key, specification_id, evaluation_id, job, system,
  nix_name, priority, status, weather, backend, attempt, losses, waiting, message, timeout_s,
  max_silent_s, submitted_at, started_at, stopped_at, log_path, log_bytes, log_digest)
SELECT id, derivation, derivation_key(derivation), specification_id, evaluation_id, job, system,
  nix_name, priority, status, weather, 0, attempt, losses, waiting, message, timeout_s,
  max_silent_s, submitted_at, started_at, stopped_at, log_path, log_bytes, log_digest
FROM build ORDER BY id;
DROP TABLE build;
ALTER TABLE build_2 RENAME TO build;

CREATE TABLE job_2 (
  evaluation_id INTEGER NOT NULL REFERENCES evaluation (id),
  name TEXT NOT NULL,
  build_id INTEGER NOT NULL REFERENCES build (id),
  reused INTEGER NOT NULL,           -- 1 when the build was known before this evaluation
  -- Evaluations of this server have each name once; imported ones may not.
  PRIMARY KEY (evaluation_id, name, build_id)
) STRICT, WITHOUT ROWID;
INSERT INTO job_2 (evaluation_id, name, build_id, reused)
SELECT evaluation_id, name, build_id, reused FROM job ORDER BY evaluation_id, name;
DROP TABLE job;
ALTER TABLE job_2 RENAME TO job;

-- How many builds there are of each kind, kept by the triggers below in the transaction that
-- changes a build: pages show how many wait without counting them, and a question that no build
-- answers is not looked for in five million.
CREATE TABLE build_count (
  status INTEGER NOT NULL,           -- as build.status
  specification_id INTEGER NOT NULL REFERENCES specification (id),
  system TEXT NOT NULL,
  builds INTEGER NOT NULL,
  PRIMARY KEY (status, specification_id, system),
  CONSTRAINT "builds is a count" CHECK (builds >= 0)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER build_registered AFTER INSERT ON build BEGIN
  INSERT INTO build_count (status, specification_id, system, builds)
    VALUES (new.status, new.specification_id, new.system, 1)
    ON CONFLICT (status, specification_id, system) DO UPDATE SET builds = builds + 1;
END;
CREATE TRIGGER build_status_changed AFTER UPDATE OF status ON build
WHEN old.status <> new.status BEGIN
  UPDATE build_count SET builds = builds - 1 WHERE status = old.status
    AND specification_id = old.specification_id AND system = old.system;
  INSERT INTO build_count (status, specification_id, system, builds)
    VALUES (new.status, new.specification_id, new.system, 1)
    ON CONFLICT (status, specification_id, system) DO UPDATE SET builds = builds + 1;
END;
CREATE TRIGGER build_removed AFTER DELETE ON build BEGIN
  UPDATE build_count SET builds = builds - 1 WHERE status = old.status
    AND specification_id = old.specification_id AND system = old.system;
END;

INSERT INTO build_count (status, specification_id, system, builds)
SELECT status, specification_id, system, count(*) FROM build GROUP BY 1, 2, 3;
