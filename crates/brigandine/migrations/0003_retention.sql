-- Deleting what is older than what is kept: builds may move to another specification, and files are
-- deleted after their rows.
DROP TRIGGER build_status_changed;
CREATE TRIGGER build_changed AFTER UPDATE OF status, specification_id ON build
WHEN old.status <> new.status OR old.specification_id <> new.specification_id BEGIN
  UPDATE build_count SET builds = builds - 1 WHERE status = old.status
    AND specification_id = old.specification_id AND system = old.system;
  INSERT INTO build_count (status, specification_id, system, builds)
    VALUES (new.status, new.specification_id, new.system, 1)
    ON CONFLICT (status, specification_id, system) DO UPDATE SET builds = builds + 1;
END;

-- Files of builds and evaluations that were deleted, until they are deleted as well. Written with the
-- deletion, so that a killed server forgets none of them. A build log is named as it was while it was
-- written; an output is a folder.
CREATE TABLE leftover (
  path TEXT NOT NULL,                -- relative to the state directory
  PRIMARY KEY (path)
) STRICT, WITHOUT ROWID;
