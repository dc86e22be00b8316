-- A public specification and a private one. Whatever belongs to the private one alone has `zebra` in its name, the digits
-- 98765 in its number, or begins with `abad1dea`. Builds 501 to 503 are of the private one, and jobs of the public one
-- have them too. A test replaces `key(NAME)` by the value of `derivation_key`.
INSERT INTO specification (id, name, definition, created_at, removed_at, looked_at, look_error, look_failures, next_look_at, look_wanted_at, look_answered_at) VALUES
 (1, 'open', '{"name":"open","description":"For everybody","inputs":[{"name":"source","url":"https://example.org/open.git","reference":{"branch":"main"}}],"evaluator":{"kind":"jobs","file":"brigandine.toml"}}', 1700000000, 0, 1700000900, '', 0, 1700001200, 0, 0),
 (987650001, 'zebra-spec', '{"name":"zebra-spec","project":"zebra-project","description":"Zebra description","inputs":[{"name":"source","url":"https://example.org/zebra.git","reference":{"branch":"zebra-branch"}}],"evaluator":{"kind":"command","command":["./zebra"],"arguments":{"zebra":"zebra"}},"private":true}', 1700000001, 0, 1700000901, 'the repository zebra cannot be reached', 3, 1700002000, 0, 0),
 (987650002, 'zebra-gone', '{"name":"zebra-gone","project":"zebra-project","inputs":[],"evaluator":{"kind":"jobs","file":"zebra.toml"},"private":true}', 1700000002, 1700000500, 0, '', 0, 0, 0, 0);
INSERT INTO evaluation (id, specification_id, stamp, status, message, created_at, checkout_at, finished_at, log_path, scheduled, started, succeeded, failed, failed_dependency, failed_other, canceled) VALUES
 (10, 1, 's10', 0, '', 1700000100, 1700000101, 1700000102, '', 0, 0, 1, 0, 0, 0, 0),
 (11, 1, 's11', 0, '', 1700000300, 1700000301, 1700000302, '', 2, 1, 3, 2, 1, 0, 1),
 (987650101, 987650001, 's1', 0, '', 1700000200, 1700000201, 1700000203, 'logs/evaluation/987650101.log', 1, 2, 2, 2, 0, 0, 0),
 (987650102, 987650001, 's2', 1, 'line 3: zebra is no JSON', 1700000400, 1700000401, 1700000402, '', 0, 0, 0, 0, 0, 0, 0),
 (987650103, 987650001, 's3', -1, '', 1700000500, 0, 0, '', 0, 0, 0, 0, 0, 0, 0),
 (987650104, 987650002, 's4', 0, '', 1700000200, 1700000201, 1700000203, '', 0, 0, 1, 0, 0, 0, 0);
UPDATE specification SET evaluation_id = 11 WHERE id = 1;
UPDATE specification SET evaluation_id = 987650101 WHERE id = 987650001;
INSERT INTO checkout (evaluation_id, position, input, revision, subject, author, revision_at) VALUES
 (10, 0, 'source', '1111111111111111111111111111111111111111', 'One', 'Ada', 1700000050),
 (11, 0, 'source', '2222222222222222222222222222222222222222', 'Two', 'Ada', 1700000250),
 (987650101, 0, 'source', 'abad1dea00000000000000000000000000000000', 'Zebra subject', 'Zebra Zoe', 1700000150),
 (987650102, 0, 'source', 'abad1dea11111111111111111111111111111111', 'Zebra broken', 'Zebra Zoe', 1700000350),
 (987650103, 0, 'source', 'abad1dea22222222222222222222222222222222', 'Zebra last', 'Zebra Zoe', 1700000450),
 (987650104, 0, 'source', 'abad1dea33333333333333333333333333333333', 'Zebra old', 'Zebra Zoe', 1700000150);
INSERT INTO build (id, derivation, derivation_key, specification_id, evaluation_id, job, system, nix_name, priority, status, weather, backend, attempt, losses, waiting, message, timeout_s, max_silent_s, submitted_at, started_at, stopped_at, log_path, log_bytes, log_digest) VALUES
 (20, 'aaaa-after.drv', key(aaaa-after.drv), 1, 10, 'after', 'x86_64-linux', 'after', 0, 0, 0, 0, 1, 0, 0, '', 0, 0, 1700000102, 1700000103, 1700000110, '', 0, ''),
 (21, 'bbbb-after.drv', key(bbbb-after.drv), 1, 11, 'after', 'x86_64-linux', 'after', 0, 0, 2, 0, 1, 0, 0, '', 0, 0, 1700000302, 1700000303, 1700000310, '', 0, ''),
 (22, 'cccc-needs.drv', key(cccc-needs.drv), 1, 11, 'needs', 'x86_64-linux', 'needs', 0, 2, 1, 0, 0, 0, 1, 'needs `zebra-fails`: failed', 0, 0, 1700000302, 0, 1700000311, '', 0, ''),
 (23, 'dddd-same.drv', key(dddd-same.drv), 1, 11, 'same', 'x86_64-linux', 'same', 0, 1, 1, 0, 0, 0, 0, 'as build 987650205: exit status 3', 0, 0, 1700000302, 0, 1700000312, '', 0, ''),
 (24, 'eeee-waits.drv', key(eeee-waits.drv), 1, 11, 'waits', 'x86_64-linux', 'waits', 0, -2, -1, 0, 0, 0, 1, '', 0, 0, 1700000302, 0, 0, '', 0, ''),
 (25, 'ffff-twin.drv', key(ffff-twin.drv), 1, 11, 'twin', 'x86_64-linux', 'twin', 0, -2, -1, 0, 0, 0, 0, '', 0, 0, 1700000302, 0, 0, '', 0, ''),
 (26, 'gggg-gone.drv', key(gggg-gone.drv), 1, 11, 'gone', 'x86_64-linux', 'gone', 0, 4, -1, 0, 1, 0, 0, 'canceled with evaluation 987650101', 0, 0, 1700000302, 1700000303, 1700000313, '', 0, ''),
 (501, 'hhhh-shared.drv', key(hhhh-shared.drv), 987650001, 987650101, 'zebra-shared', 'x86_64-linux', 'shared', 0, 0, 0, 0, 1, 0, 0, '', 0, 0, 1700000203, 1700000204, 1700000210, 'logs/build/0/501-1.log', 12, ''),
 (502, 'iiii-fails.drv', key(iiii-fails.drv), 987650001, 987650101, 'zebra-fails', 'x86_64-linux', 'fails', 0, 1, 1, 0, 1, 0, 0, 'exit status 2', 0, 0, 1700000203, 1700000204, 1700000211, '', 0, ''),
 (503, 'jjjj-runs.drv', key(jjjj-runs.drv), 987650001, 987650101, 'zebra-runs', 'x86_64-linux', 'runs', 0, -1, -1, 0, 1, 0, 0, '', 0, 0, 1700000203, 1700000204, 0, '', 0, ''),
 (987650201, 'zebra-job.drv', key(zebra-job.drv), 987650001, 987650101, 'zebra-job', 'zebra-system', 'zebra-nix', 0, 0, 0, 0, 1, 0, 0, '', 0, 0, 1700000203, 1700000204, 1700000212, 'logs/build/987650/987650201-1.log', 11, ''),
 (987650205, 'dddd-same.drv', key(dddd-same.drv), 987650001, 987650101, 'zebra-same', 'x86_64-linux', 'same', 0, 1, 1, 0, 1, 0, 0, 'zebra died', 0, 0, 1700000203, 1700000204, 1700000213, '', 0, ''),
 (987650206, 'zebra-wait.drv', key(zebra-wait.drv), 987650001, 987650101, 'zebra-wait', 'zebra-system', 'zebra-nix', 0, -2, -1, 0, 0, 0, 1, '', 0, 0, 1700000203, 0, 0, '', 0, ''),
 (987650207, 'ffff-twin.drv', key(ffff-twin.drv), 987650001, 987650101, 'zebra-twin', 'x86_64-linux', 'twin', 0, -1, -1, 0, 1, 0, 0, '', 0, 0, 1700000203, 1700000204, 0, '', 0, ''),
 (987650208, 'zebra-old.drv', key(zebra-old.drv), 987650002, 987650104, 'zebra-old', 'zebra-system', 'zebra-nix', 0, 0, 0, 0, 1, 0, 0, '', 0, 0, 1700000203, 1700000204, 1700000214, '', 0, '');
INSERT INTO job (evaluation_id, name, build_id, reused) VALUES
 (10, 'after', 20, 0),
 (11, 'after', 21, 0), (11, 'needs', 22, 0), (11, 'same', 23, 0), (11, 'waits', 24, 0), (11, 'twin', 25, 0), (11, 'gone', 26, 0),
 (11, 'shared', 501, 1), (11, 'fails', 502, 1), (11, 'runs', 503, 1),
 (987650101, 'zebra-job', 987650201, 0), (987650101, 'zebra-shared', 501, 0), (987650101, 'zebra-fails', 502, 0), (987650101, 'zebra-runs', 503, 0),
 (987650101, 'zebra-same', 987650205, 0), (987650101, 'zebra-wait', 987650206, 0), (987650101, 'zebra-twin', 987650207, 0),
 (987650104, 'zebra-old', 987650208, 0);
INSERT INTO dependency (build_id, needs_id, name) VALUES
 (21, 501, 'shared'), (22, 502, 'fails'), (24, 503, 'runs'), (987650201, 501, 'zebra-needs'), (987650206, 503, 'zebra-needs');
INSERT INTO attempt (build_id, number, worker, status, message, started_at, stopped_at) VALUES
 (20, 1, 'local', 0, '', 1700000103, 1700000110), (21, 1, 'local', 0, '', 1700000303, 1700000310),
 (26, 1, 'local', 4, 'canceled with evaluation 987650101', 1700000303, 1700000313),
 (501, 1, 'local', 0, '', 1700000204, 1700000210), (502, 1, 'local', 1, 'exit status 2', 1700000204, 1700000211), (503, 1, 'local', -1, '', 1700000204, 0),
 (987650201, 1, 'zebra-worker', 0, '', 1700000204, 1700000212), (987650205, 1, 'zebra-worker', 1, 'zebra died', 1700000204, 1700000213), (987650207, 1, 'zebra-worker', -1, '', 1700000204, 0);
INSERT INTO output (build_id, name, path) VALUES (501, 'out', 'outputs/cafe'), (987650201, 'out', 'outputs/zebra-out');
INSERT INTO product (id, build_id, kind, name, path, bytes, checksum) VALUES
 (31, 501, 'file', 'shared.txt', 'products/shared.txt', 12, '11'),
 (987650301, 987650201, 'file', 'zebra.txt', 'products/zebra.txt', 11, '22');
INSERT INTO definition (build_id, text) VALUES
 (20, '{"version":2,"name":"after","command":["/bin/sh","-e","-c","make"],"environment":{},"system":"x86_64-linux","sources":[{"input":"source","main":true,"url":"https://example.org/open.git","revision":"1111111111111111111111111111111111111111","submodules":false,"patterns":[],"digest":"d1"}],"needs":{},"products":[],"isolation":"none"}'),
 (21, '{"version":2,"name":"after","command":["/bin/sh","-e","-c","make"],"environment":{},"system":"x86_64-linux","sources":[{"input":"source","main":true,"url":"https://example.org/open.git","revision":"2222222222222222222222222222222222222222","submodules":false,"patterns":[],"digest":"d2"}],"needs":{},"products":[],"isolation":"none"}'),
 (501, '{"version":2,"name":"shared","command":["/bin/sh","-e","-c","make shared"],"environment":{},"system":"x86_64-linux","sources":[{"input":"source","main":true,"url":"https://example.org/zebra.git","revision":"abad1dea00000000000000000000000000000000","submodules":false,"patterns":[],"digest":"d2"}],"needs":{},"products":[],"isolation":"none","description":"Zebra description"}'),
 (987650201, '{"version":2,"name":"zebra","command":["/bin/sh","-e","-c","make zebra"],"environment":{"ZEBRA":"zebra"},"system":"zebra-system","sources":[],"needs":{},"products":[],"isolation":"none","description":"Zebra description"}');
INSERT INTO audit (id, at, actor, change, build_id, evaluation_id, specification_id, result, reason) VALUES
 (1, 1700000210, 'alice', 'comment', 21, 11, 1, '', 'well done'),
 (2, 1700000220, 'zebra-actor', 'restart', 501, 987650101, 987650001, 'restarted', 'zebra reason'),
 (3, 1700000230, 'zebra-actor', 'cancel', NULL, 987650101, 987650001, 'zebra result', 'zebra reason'),
 (4, 1700000240, 'zebra-actor', 'disable', NULL, NULL, 987650001, 'zebra result', 'zebra reason'),
 (5, 1700000250, 'zebra-actor', 'comment', 987650201, 987650101, 987650001, '', 'zebra reason');
