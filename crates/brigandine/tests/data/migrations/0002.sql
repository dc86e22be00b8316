-- Rows of version 2, for the steps after it: imported builds, a job name twice in an evaluation.
INSERT INTO evaluation (id, specification_id, stamp, status, message, created_at, checkout_at, finished_at, log_path, scheduled, started, succeeded, failed, failed_dependency, failed_other, canceled) VALUES
 (5, 2, 'cuirass 5: aaaa', 0, '', 1700000500, 1700000500, 1700000501, '', 1, 0, 1, 0, 0, 0, 0);
INSERT INTO build (id, derivation, derivation_key, specification_id, evaluation_id, job, system, nix_name, priority, status, weather, backend, attempt, losses, waiting, message, timeout_s, max_silent_s, submitted_at, started_at, stopped_at, log_path, log_bytes, log_digest) VALUES
 (9, '/gnu/store/iiii-x.drv', 1, 2, 5, 'x', 'x86_64-linux', 'x', 0, 0, 2, 1, 0, 0, 0, '', 0, 0, 1700000500, 1700000500, 1700000501, '', 0, ''),
 (10, '/gnu/store/jjjj-x.drv', -2, 2, 5, 'x', 'i686-linux', 'x', 0, -2, -1, 1, 0, 0, 0, '', 0, 0, 1700000500, 0, 0, '', 0, '');
INSERT INTO job (evaluation_id, name, build_id, reused) VALUES (5, 'x', 9, 0), (5, 'x', 10, 0);
INSERT INTO output (build_id, name, path) VALUES (9, 'out', '/gnu/store/iiii-x');
