-- The schema of Brigandine's database: the document to read. migrations/ lead here; a test
-- compares what they make with this file.
--
-- Times are UTC seconds in ..._at, 0 for "not yet". No column has a default that asks for the time
-- or for chance: every value comes with the statement. Build logs and products are files beside
-- the database; their paths are relative to the state directory.
PRAGMA application_id = 1112688452; -- "BRGD"
PRAGMA user_version = 9;

-- One row: who this state directory is. Its id stands in the environment of every child process,
-- which is how a restarted server finds the processes of a killed one.
CREATE TABLE server (
  id INTEGER PRIMARY KEY,
  state_id TEXT NOT NULL,
  -- 1 after an orderly shutdown, 0 while running: 0 at start-up means that the last one was killed.
  stopped INTEGER NOT NULL,
  CONSTRAINT "there is one server row" CHECK (id = 1),
  CONSTRAINT "stopped is yes or no" CHECK (stopped IN (0, 1))
) STRICT;

CREATE TABLE specification (
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
CREATE UNIQUE INDEX specification_name ON specification (name);
-- What is not for everybody: asked before each answer. The condition is that of store/hidden.rs.
CREATE INDEX specification_private ON specification (project, name)
  WHERE json_extract(definition, '$.private') = 1;

CREATE TABLE evaluation (
  id INTEGER PRIMARY KEY,
  specification_id INTEGER NOT NULL REFERENCES specification (id),
  stamp TEXT NOT NULL,               -- digest of the definition and the revisions
  status INTEGER NOT NULL,           -- -1 started, 0 succeeded, 1 failed, 2 aborted
  message TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  checkout_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  log_path TEXT NOT NULL,
  -- How its jobs stand, changed in the transaction that changes a build.
  scheduled INTEGER NOT NULL,
  started INTEGER NOT NULL,
  succeeded INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  failed_dependency INTEGER NOT NULL,
  failed_other INTEGER NOT NULL,
  canceled INTEGER NOT NULL,
  CONSTRAINT "the status is known" CHECK (status BETWEEN -1 AND 2),
  CONSTRAINT "finished if and only if dated" CHECK ((status >= 0) = (finished_at > 0)),
  CONSTRAINT "no counter is negative" CHECK (scheduled >= 0 AND started >= 0 AND succeeded >= 0
    AND failed >= 0 AND failed_dependency >= 0 AND failed_other >= 0 AND canceled >= 0)
) STRICT;
CREATE UNIQUE INDEX evaluation_stamp ON evaluation (specification_id, stamp);
CREATE INDEX evaluation_by_specification ON evaluation (specification_id, id);
CREATE INDEX evaluation_started ON evaluation (id) WHERE status = -1;

CREATE TABLE checkout (
  evaluation_id INTEGER NOT NULL REFERENCES evaluation (id),
  position INTEGER NOT NULL,         -- of the input in its specification
  input TEXT NOT NULL,
  revision TEXT NOT NULL,
  subject TEXT NOT NULL,
  author TEXT NOT NULL,
  revision_at INTEGER NOT NULL,
  PRIMARY KEY (evaluation_id, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE build (
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
-- Rows of equal keys are in the order of their ids, so `ORDER BY stopped_at DESC, id DESC` reads
-- these indexes backwards, and a build that ends is appended to each.
CREATE INDEX build_derivation ON build (derivation_key);
-- What next: the builder asks per system.
CREATE INDEX build_ready ON build (system, priority DESC, submitted_at, derivation)
  WHERE status = -2 AND waiting = 0 AND backend = 0;
-- What a restarted server has to look at.
CREATE INDEX build_unfinished ON build (backend) WHERE status < 0 AND backend = 0;
-- The queue as people see it: running first, then by submission.
CREATE INDEX build_queue ON build (status DESC, submitted_at) WHERE status < 0;
CREATE INDEX build_latest ON build (stopped_at) WHERE status >= 0;
CREATE INDEX build_latest_of_specification ON build (specification_id, stopped_at)
  WHERE status >= 0;
CREATE INDEX build_latest_of_evaluation ON build (evaluation_id, stopped_at) WHERE status >= 0;
CREATE INDEX build_latest_of_job ON build (specification_id, job, stopped_at) WHERE status >= 0;
CREATE INDEX build_latest_for_system ON build (system, stopped_at) WHERE status >= 0;
-- An expression, so that it serves "with this status" alone: as a plain column it would also be
-- taken for the range "finished", which then has to be sorted.
CREATE INDEX build_latest_with_status ON build (status + 0, stopped_at) WHERE status >= 0;

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
CREATE TRIGGER build_changed AFTER UPDATE OF status, specification_id ON build
WHEN old.status <> new.status OR old.specification_id <> new.specification_id BEGIN
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

-- JSON of model::Definition, beside the row that is read all the time rather than in it.
CREATE TABLE definition (
  build_id INTEGER PRIMARY KEY REFERENCES build (id),
  text TEXT NOT NULL,
  CONSTRAINT "the definition is JSON" CHECK (json_valid(text))
) STRICT;

CREATE TABLE job (
  evaluation_id INTEGER NOT NULL REFERENCES evaluation (id),
  name TEXT NOT NULL,
  build_id INTEGER NOT NULL REFERENCES build (id),
  reused INTEGER NOT NULL,           -- 1 when the build was known before this evaluation
  -- Evaluations of this server have each name once; imported ones may not.
  PRIMARY KEY (evaluation_id, name, build_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_by_build ON job (build_id, evaluation_id);

CREATE TABLE dependency (
  build_id INTEGER NOT NULL REFERENCES build (id),
  needs_id INTEGER NOT NULL REFERENCES build (id),
  name TEXT NOT NULL,                -- what the build calls it
  PRIMARY KEY (build_id, needs_id),
  CONSTRAINT "nothing needs itself" CHECK (build_id <> needs_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX dependency_reverse ON dependency (needs_id, build_id);

-- One that runs and is to be canceled has status 4 and no stopped_at: a restarted server cancels it.
CREATE TABLE attempt (
  build_id INTEGER NOT NULL REFERENCES build (id),
  number INTEGER NOT NULL,
  worker TEXT NOT NULL,
  status INTEGER NOT NULL,           -- as build.status; -2 when it was lost
  message TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  stopped_at INTEGER NOT NULL,
  PRIMARY KEY (build_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE output (
  build_id INTEGER NOT NULL REFERENCES build (id),
  name TEXT NOT NULL,
  path TEXT NOT NULL,
  PRIMARY KEY (build_id, name)
) STRICT, WITHOUT ROWID;
-- Who else has an output that is to be deleted. Those of imported builds are no files of ours.
CREATE INDEX output_by_path ON output (path) WHERE substr(path, 1, 8) = 'outputs/';

CREATE TABLE product (
  id INTEGER PRIMARY KEY,
  build_id INTEGER NOT NULL REFERENCES build (id),
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  path TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  checksum TEXT NOT NULL
) STRICT;
CREATE INDEX product_by_build ON product (build_id);

-- Files of builds and evaluations that were deleted, until they are deleted as well. Written with the
-- deletion, so that a killed server forgets none of them. A build log is named as it was while it was
-- written; an output is a folder.
CREATE TABLE leftover (
  path TEXT NOT NULL,                -- relative to the state directory
  PRIMARY KEY (path)
) STRICT, WITHOUT ROWID;

-- Who asked for which change, when and why: a row for each change that was made, written with it. The
-- newest 100,000 are kept, for two years. They outlive what they are about, so these are no references;
-- numbers of builds and evaluations are not given again.
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
CREATE INDEX audit_of_build ON audit (build_id) WHERE build_id IS NOT NULL;
CREATE INDEX audit_of_evaluation ON audit (evaluation_id) WHERE evaluation_id IS NOT NULL;
CREATE INDEX audit_of_specification ON audit (specification_id) WHERE specification_id IS NOT NULL;

-- People who may log in.
CREATE TABLE user (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  password TEXT NOT NULL,            -- its argon2id digest with salt and parameters, in PHC's form
  created_at INTEGER NOT NULL,
  disabled_at INTEGER NOT NULL       -- 0 while the user may log in
) STRICT;
CREATE UNIQUE INDEX user_name ON user (name);

-- Whom a provider of OpenID Connect knows as which user. These users have no password.
CREATE TABLE subject (
  subject TEXT NOT NULL,             -- the issuer, a blank, and the subject that the issuer gives to nobody else
  user_id INTEGER NOT NULL REFERENCES user (id),
  PRIMARY KEY (subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX subject_by_user ON subject (user_id);

CREATE TABLE user_role (
  user_id INTEGER NOT NULL REFERENCES user (id),
  scope TEXT NOT NULL,               -- empty everywhere, or PROJECT, or PROJECT/SPECIFICATION
  role TEXT NOT NULL,
  PRIMARY KEY (user_id, scope),
  CONSTRAINT "the role is known" CHECK (role IN ('reader', 'builder', 'admin'))
) STRICT, WITHOUT ROWID;

-- Logins that have not ended.
CREATE TABLE session (
  id INTEGER PRIMARY KEY,
  user_id INTEGER NOT NULL REFERENCES user (id),
  digest BLOB NOT NULL,              -- SHA-256 of the secret in the cookie
  client TEXT NOT NULL,              -- the address from which the user logged in
  created_at INTEGER NOT NULL,
  used_at INTEGER NOT NULL           -- to some minutes
) STRICT;
CREATE UNIQUE INDEX session_digest ON session (digest);
CREATE INDEX session_by_user ON session (user_id, used_at);

-- What programs show instead of a password.
CREATE TABLE token (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  digest BLOB NOT NULL,              -- SHA-256 of the token
  scope TEXT NOT NULL,               -- as in user_role
  role TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,       -- 0: never
  used_at INTEGER NOT NULL,          -- to the hour
  CONSTRAINT "the role is known" CHECK (role IN ('reader', 'builder', 'admin'))
) STRICT;
CREATE UNIQUE INDEX token_name ON token (name);
CREATE UNIQUE INDEX token_digest ON token (digest);

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
