-- Rows of version 1, for the step to version 2.
INSERT INTO specification (id, name, definition, created_at, removed_at, looked_at, look_error, look_failures, next_look_at, look_wanted_at) VALUES
 (1, 'hello', '{"name":"hello","description":"Prints a greeting","inputs":[{"name":"source","url":"https://example.org/hello.git","reference":{"branch":"main"}},{"name":"data","url":"/srv/data.git","reference":{"tag":"v1.0"}}],"evaluator":{"kind":"jobs","file":"brigandine.toml"}}', 1700000000, 0, 1700000900, '', 0, 1700001200, 0),
 (2, 'odd', '{"name":"odd","inputs":[{"name":"src","url":"ssh://git@example.org/odd.git","reference":{"revision":"0123456789abcdef0123456789abcdef01234567"}}],"evaluator":{"kind":"command","input":"src","command":["./ci/evaluate","--all"],"arguments":{"subset":"core"}}}', 1700000001, 0, 1700000901, 'the repository cannot be reached: <b>connection refused</b>', 3, 1700002000, 0),
 (3, 'gone', '{"name":"gone","inputs":[],"evaluator":{"kind":"jobs","file":"brigandine.toml"}}', 1700000002, 1700000500, 0, '', 0, 0, 0);
INSERT INTO evaluation (id, specification_id, stamp, status, message, created_at, checkout_at, finished_at, log_path, scheduled, started, succeeded, failed, failed_dependency, failed_other, canceled) VALUES
 (1, 1, 's1', 0, '', 1700000100, 1700000101, 1700000102, '', 0, 0, 2, 0, 0, 0, 0),
 (2, 1, 's2', 0, '', 1700000200, 1700000201, 1700000203, '', 1, 1, 2, 1, 1, 1, 1),
 (3, 2, 's3', 1, 'line 3 of the evaluator''s output: "<job>" is no JSON', 1700000300, 1700000301, 1700000302, '', 0, 0, 0, 0, 0, 0, 0),
 (4, 2, 's4', -1, '', 1700000400, 0, 0, '', 0, 0, 0, 0, 0, 0, 0);
INSERT INTO checkout (evaluation_id, position, input, revision, subject, author, revision_at) VALUES
 (1, 0, 'source', '1111111111111111111111111111111111111111', 'Greet the world', 'Ada', 1700000050),
 (1, 1, 'data', '2222222222222222222222222222222222222222', 'Words', 'Ben', 1700000040),
 (2, 0, 'source', '3333333333333333333333333333333333333333', 'Greet <everybody> & more', 'Ada', 1700000150),
 (2, 1, 'data', '2222222222222222222222222222222222222222', 'Words', 'Ben', 1700000040),
 (3, 0, 'src', '0123456789abcdef0123456789abcdef01234567', 'Odd', 'Eve', 1700000250),
 (4, 0, 'src', '89abcdef0123456789abcdef0123456789abcdef', 'Odder', 'Eve', 1700000350);
INSERT INTO build (id, derivation, basename, specification_id, evaluation_id, job, system, nix_name, priority, status, weather, attempt, losses, waiting, message, timeout_s, max_silent_s, submitted_at, started_at, stopped_at, log_path, log_bytes, log_digest) VALUES
 (1, 'aaaa-compile.drv', 'aaaa-compile.drv', 1, 1, 'compile', 'x86_64-linux', 'compile', 0, 0, 0, 1, 0, 0, '', 0, 0, 1700000102, 1700000103, 1700000110, '', 0, ''),
 (2, 'bbbb-test.drv', 'bbbb-test.drv', 1, 1, 'test', 'x86_64-linux', 'test-1.0', 0, 0, 0, 1, 0, 0, '', 0, 0, 1700000102, 1700000110, 1700000115, '', 0, ''),
 (3, 'cccc-test.drv', 'cccc-test.drv', 1, 2, 'test', 'x86_64-linux', 'test-1.1', 5, 1, 1, 1, 0, 0, 'exit status 2', 0, 0, 1700000203, 1700000204, 1700000230, '', 0, ''),
 (4, 'dddd-package.drv', 'dddd-package.drv', 1, 2, 'package', 'aarch64-linux', 'package', 0, 2, 1, 0, 0, 1, 'needs test', 0, 0, 1700000203, 0, 1700000230, '', 0, ''),
 (5, 'eeee-slow.drv', 'eeee-slow.drv', 1, 2, 'slow', 'x86_64-linux', 'slow', 0, 3, 1, 2, 1, 0, 'no output for 60 s', 0, 0, 1700000203, 1700000205, 1700000265, '', 0, ''),
 (6, 'ffff-docs.drv', 'ffff-docs.drv', 1, 2, 'docs', 'x86_64-linux', 'docs', 0, 4, -1, 0, 0, 0, '', 0, 0, 1700000203, 0, 1700000210, '', 0, ''),
 (7, '/store/gggg-lint-2.drv', 'gggg-lint-2.drv', 1, 2, 'lint "all" <x>', 'x86_64-linux', 'lint-2', -3, -1, -1, 1, 0, 0, '', 0, 0, 1700000203, 1700000240, 0, '', 0, ''),
 (8, 'hhhh-bench.drv', 'hhhh-bench.drv', 1, 2, 'bench', 'x86_64-linux', 'bench', 9, -2, -1, 0, 0, 1, '', 0, 0, 1700000202, 0, 0, '', 0, '');
INSERT INTO job (evaluation_id, name, build_id, reused) VALUES
 (1, 'compile', 1, 0), (1, 'test', 2, 0),
 (2, 'compile', 1, 1), (2, 'test', 3, 0), (2, 'package', 4, 0), (2, 'slow', 5, 0), (2, 'docs', 6, 0), (2, 'lint "all" <x>', 7, 0), (2, 'bench', 8, 0);
INSERT INTO dependency (build_id, needs_id, name) VALUES (2, 1, 'compile'), (3, 1, 'compile'), (4, 3, 'test'), (8, 7, 'lint');
INSERT INTO attempt (build_id, number, worker, status, message, started_at, stopped_at) VALUES
 (1, 1, 'local', 0, '', 1700000103, 1700000110), (2, 1, 'local', 0, '', 1700000110, 1700000115),
 (3, 1, 'local', 1, 'exit status 2', 1700000204, 1700000230),
 (5, 1, 'local', -2, 'the server was killed', 1700000204, 1700000205), (5, 2, 'local', 3, 'no output for 60 s', 1700000205, 1700000265),
 (7, 1, 'local', -1, '', 1700000240, 0);
INSERT INTO output (build_id, name, path) VALUES (1, 'out', 'outputs/aaaa-compile'), (2, 'doc', 'outputs/bbbb-test-doc'), (2, 'out', 'outputs/bbbb-test');
INSERT INTO product (id, build_id, kind, name, path, bytes, checksum) VALUES
 (1, 1, 'file', 'build/hello', 'products/hello', 12, 'a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447'),
 (2, 1, 'file', 'build/missing "x"', 'products/missing', 5, '00');
INSERT INTO server (id, state_id, stopped) VALUES (1, '0d6a5f3a-6ac4-4a1c-a1fb-5b6c1f8a1f6b', 1);
INSERT INTO definition (build_id, text) VALUES (1, '{"version":1}');
