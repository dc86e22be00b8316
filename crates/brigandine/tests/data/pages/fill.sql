-- Every kind of specification, evaluation and build that a page can show, with names that are hard to show.
-- Numbers begin at 1001, so that it can be added to the state of a server that has builds of its own.
-- `derivation_key`: the first eight bytes of the SHA-256 of the derivation after its last slash, as the schema says.
INSERT INTO specification (id, name, definition, created_at, removed_at, looked_at, look_error, look_failures, next_look_at, look_wanted_at, look_answered_at) VALUES
 (1001, 'sample', '{"name":"sample","description":"Builds of every kind, one of each","inputs":[{"name":"source","url":"https://example.org/sample.git","reference":{"branch":"main"}},{"name":"data","url":"/srv/data.git","reference":{"tag":"v1.0"}}],"evaluator":{"kind":"jobs","file":"brigandine.toml"},"interval_s":300,"enabled":true}', 1700000000, 0, 1700000900, '', 0, 1700001200, 0, 0),
 (1002, 'unreachable', '{"name":"unreachable","description":"","inputs":[{"name":"source","url":"https://example.org/a-long-path-without-a-blank/a-long-path-without-a-blank/a-long-path-without-a-blank/a-long-path-without-a-blank/a-long-path-without-a-blank/a-long-path-without-a-blank/x.git","reference":{"branch":"main"}}],"evaluator":{"kind":"jobs","file":"brigandine.toml"},"interval_s":5,"enabled":true}', 1700000000, 0, 1700000900, 'input `source`: the repository cannot be reached: git fetch: could not resolve host: example.org https://example.org/a-long-path-without-a-blank/a-long-path-without-a-blank/a-long-path-without-a-blank/a-long-path-without-a-blank/a-long-path-without-a-blank/a-long-path-without-a-blank/', 4, 1700001200, 0, 0),
 (1003, 'disabled', '{"name":"disabled","description":"Is never looked at","inputs":[{"name":"source","url":"/srv/off.git","reference":"head"}],"evaluator":{"kind":"jobs","file":"brigandine.toml"},"interval_s":null,"enabled":false}', 1700000000, 0, 0, '', 0, 0, 0, 0),
 (1004, 'fresh', '{"name":"fresh","description":"","inputs":[{"name":"source","url":"/srv/fresh.git","reference":"head"}],"evaluator":{"kind":"jobs","file":"brigandine.toml"},"interval_s":null,"enabled":true}', 1700000000, 0, 0, '', 0, 0, 0, 0),
 (1005, 'a-specification-with-a-very-long-name-that-has-no-blank-anywhere-and-goes-on-and-on-and-on-and-on-to-its-end', '{"name":"a-specification-with-a-very-long-name-that-has-no-blank-anywhere-and-goes-on-and-on-and-on-and-on-to-its-end","description":"A description that goes on for longer than one line of any page has room for, with a word of unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken in it, and <b>markup</b> & more","inputs":[{"name":"source","url":"ssh://git@example.org/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/repository.git","reference":{"branch":"feature/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}],"evaluator":{"kind":"jobs","file":"brigandine.toml"},"interval_s":null,"enabled":true}', 1700000000, 0, 1700000900, '', 0, 1700001200, 0, 0),
 (1006, 'imported', '{"name":"imported","description":"From a Cuirass server","inputs":[{"name":"guix","url":"https://git.savannah.gnu.org/git/guix.git","reference":{"revision":"0123456789abcdef0123456789abcdef01234567"}}],"evaluator":{"kind":"command","input":"guix","command":["./ci/evaluate","--all"],"arguments":{"subset":"core"}},"interval_s":null,"enabled":true}', 1700000000, 0, 1700000900, '', 0, 1700001200, 0, 0);
INSERT INTO evaluation (id, specification_id, stamp, status, message, created_at, checkout_at, finished_at, log_path, scheduled, started, succeeded, failed, failed_dependency, failed_other, canceled) VALUES
 (1001, 1001, 's1001', 0, '', 1700000100, 1700000101, 1700000103, '', 0, 0, 2, 0, 0, 0, 0),
 (1002, 1001, 's1002', 0, '', 1700000200, 1700000201, 1700000203, 'logs/evaluation/1002.log.zst', 2, 1, 3, 3, 1, 1, 2),
 (1003, 1001, 's1003', 1, 'line 3 of the evaluator''s output: "<job>" is no JSON: unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken', 1700000300, 1700000301, 1700000303, '', 0, 0, 0, 0, 0, 0, 0),
 (1004, 1001, 's1004', 2, 'the server was stopped', 1700000400, 1700000401, 1700000403, '', 0, 0, 0, 0, 0, 0, 0),
 (1005, 1001, 's1005', -1, '', 1700000500, 0, 0, '', 0, 0, 0, 0, 0, 0, 0),
 (1006, 1001, 's1006', 0, '', 1700000600, 1700000601, 1700000603, '', 0, 0, 0, 0, 0, 0, 0),
 (1007, 1005, 's1007', 0, '', 1700000700, 1700000701, 1700000703, '', 0, 0, 1, 1, 0, 0, 0),
 (1008, 1006, 's1008', 0, '', 1700000800, 1700000801, 1700000803, '', 1, 0, 1, 0, 0, 0, 0),
 (1009, 1006, 's1009', 2, 'it had not ended when it was imported', 1700000900, 1700000901, 1700000903, '', 0, 0, 0, 0, 0, 0, 0);
-- Its branch was set back.
UPDATE specification SET evaluation_id = 1008 WHERE id = 1006;
INSERT INTO checkout (evaluation_id, position, input, revision, subject, author, revision_at) VALUES
 (1001, 0, 'source', 'dd01903921ea24941c26a48f2cec24e0bb0e8cc7', 'Greet the world', 'Ada Lovelace', 1700000050),
 (1001, 1, 'data', '2222222222222222222222222222222222222222', 'Words', 'Ben', 1700000040),
 (1002, 0, 'source', 'a5b1d7e217aa227d5b2b8a84920780cf637960e2', 'Greet <everybody> & more', 'Ada Lovelace', 1700000050),
 (1002, 1, 'data', '2222222222222222222222222222222222222222', 'Words', 'Ben', 1700000040),
 (1003, 0, 'source', '9f6bf828c80134b8d3e07b058045fba6acd4e9ac', 'Ein Betreff mit Umlauten: äöü, 日本語, עברית', 'Ada Lovelace', 1700000050),
 (1003, 1, 'data', '2222222222222222222222222222222222222222', 'Words', 'Ben', 1700000040),
 (1004, 0, 'source', '70b8dcb93382715a55ce5f2a8356ef5636a2d2da', 'A subject line that is much longer than anybody should write, A subject line that is much longer than anybody should write, A subject line that is much longer than anybody should write, ', 'Ada Lovelace', 1700000050),
 (1004, 1, 'data', '2222222222222222222222222222222222222222', 'Words', 'Ben', 1700000040),
 (1005, 0, 'source', '0477d720adf7c715b04850723531a5fb1bc5334b', 'unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken', 'Ada Lovelace', 1700000050),
 (1005, 1, 'data', '2222222222222222222222222222222222222222', 'Words', 'Ben', 1700000040),
 (1006, 0, 'source', '8554fe9ee0ed24d97cc3b500a33d4320c0fcd5a3', '', 'Ada Lovelace', 1700000050),
 (1006, 1, 'data', '2222222222222222222222222222222222222222', 'Words', 'Ben', 1700000040),
 (1007, 0, 'source', '4444444444444444444444444444444444444444', 'unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken', 'An Author With Many Names With Many Names With Many Names With Many Names With Many Names With Many Names ', 1700000050),
 (1008, 0, 'guix', '5555555555555555555555555555555555555555', '', '', 0);
INSERT INTO build (id, derivation, derivation_key, specification_id, evaluation_id, job, system, nix_name, priority, status, weather, backend, attempt, losses, waiting, message, timeout_s, max_silent_s, submitted_at, started_at, stopped_at, log_path, log_bytes, log_digest) VALUES
 (1001, 'b8c37e33defde51cf91e1e03e51657da-1001.drv', -2517904609190038597, 1001, 1001, 'compile', 'x86_64-linux', 'compile', 0, 0, 0, 0, 1, 0, 0, '', 0, 0, 1700000203, 1700000204, 1700000231, 'logs/build/1/1001-1.log.zst', 71, ''),
 (1002, 'fba9d88164f3e2d9109ee770223212a0-1002.drv', -3907135525316899129, 1001, 1002, 'test', 'x86_64-linux', 'test-1.1', 5, 1, 1, 0, 2, 1, 0, 'exit status 2', 0, 0, 1700000203, 1700000204, 1700000232, 'logs/build/1/1002-2.log.zst', 71, ''),
 (1003, 'aa68c75c4a77c87f97fb686b2f068676-1003.drv', -468360346793207486, 1001, 1002, 'package', 'aarch64-linux', 'package', 0, 2, -1, 0, 0, 0, 0, 'needs `test`: failed', 0, 0, 1700000203, 0, 1700000233, '', 0, ''),
 (1004, 'fed33392d3a48aa149a87a38b875ba4a-1004.drv', 7960813687452331067, 1001, 1002, 'slow', 'x86_64-linux', 'slow', 0, 3, 3, 0, 1, 0, 0, 'took longer than 60 s', 0, 0, 1700000203, 1700000204, 1700000234, 'logs/build/1/1004-1.log.zst', 10, ''),
 (1005, '2387337ba1e0b0249ba90f55b2ba2521-1005.drv', -7785524080604886956, 1001, 1002, 'docs', 'x86_64-linux', 'docs', 0, 4, -1, 0, 0, 0, 0, 'canceled on request', 0, 0, 1700000203, 0, 1700000235, '', 0, ''),
 (1006, '9246444d94f081e3549803b928260f56-1006.drv', 5193372846433620103, 1001, 1002, 'lint "all" <x>', 'x86_64-linux', 'lint "all" <x>', -3, -1, -1, 0, 1, 0, 0, '', 0, 0, 1700000203, 1700000204, 0, '', 0, ''),
 (1007, 'd7322ed717dedf1eb4e6e52a37ea7bcd-1007.drv', 6658096307589450071, 1001, 1002, 'bench', 'x86_64-linux', 'bench', 9, -2, -1, 0, 0, 0, 1, '', 0, 0, 1700000202, 0, 0, '', 0, ''),
 (1008, '1587965fb4d4b5afe8428a4a024feb0d-1008.drv', -84747330512872899, 1001, 1002, 'a-job-with-a-name-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-', 'x86_64-linux', 'a-job-with-a-name-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-', 0, -2, -1, 0, 1, 0, 0, 'the worker could not fetch the sources: unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken; tried again after 5 s', 0, 0, 1700000203, 0, 0, '', 0, ''),
 (1009, '31b3b31a1c2f8a370206f111127c0dbd-1009.drv', -6766395741158689474, 1001, 1002, 'prüfung-日本語-тест', 'x86_64-linux', 'prüfung-日本語-тест', 0, 0, -1, 0, 2, 0, 0, '', 0, 0, 1700000203, 1700000204, 1700000239, '', 0, ''),
 (1010, '1e48c4420b7073bc11916c6c1de226bb-1010.drv', 4035693539573582299, 1005, 1007, 'unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken', 'a-system-with-a-long-name-that-is-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 'unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken', 0, 1, -1, 0, 1, 0, 0, 'exit status 1: unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken', 0, 0, 1700000203, 1700000204, 1700000240, 'logs/build/1/1010-1.log.zst', 99, ''),
 (1011, '7f975a56c761db6506eca0b37ce6ec87-1011.drv', -3540159641708560868, 1001, 1002, 'gone', 'x86_64-linux', 'gone', 0, 1, -1, 0, 1, 0, 0, 'exit status 1', 0, 0, 1700000203, 1700000204, 1700000241, 'logs/build/1/1011-1.log.zst', 99, ''),
 (1012, 'f33ba15effa5c10e873bf3842afb46a6-1012.drv', 338720495390340463, 1001, 1002, 'torn', 'x86_64-linux', 'torn', 0, 1, -1, 0, 1, 0, 0, 'exit status 1', 0, 0, 1700000203, 1700000204, 1700000242, 'logs/build/1/1012-1.log.zst', 99, ''),
 (1013, '/gnu/store/0123456789abcdfghijklmnpqrsvwxyz-emacs-29.1.drv', -2469252127272251597, 1006, 1008, 'emacs.x86_64-linux', 'x86_64-linux', 'emacs-29.1', 0, 0, -1, 1, 0, 0, 0, '', 0, 0, 1700000203, 1700000204, 1700000243, '', 0, ''),
 (1014, '/gnu/store/1123456789abcdfghijklmnpqrsvwxyz-hello-2.12.drv', -8759394598919756882, 1006, 1008, 'hello.x86_64-linux', 'x86_64-linux', 'hello-2.12', 0, -2, -1, 1, 0, 0, 0, '', 0, 0, 1700000203, 0, 0, '', 0, ''),
 (1015, '298923c8190045e91288b430794814c4-1015.drv', -7859067080593949579, 1005, 1007, 'compile', 'x86_64-linux', 'compile', 0, 0, -1, 0, 0, 0, 0, 'as build 1001', 0, 0, 1700000203, 0, 1700000245, '', 0, '');
INSERT INTO job (evaluation_id, name, build_id, reused) VALUES
 (1001, 'compile', 1001, 0),
 (1001, 'test', 1009, 0),
 (1002, 'compile', 1001, 1),
 (1002, 'test', 1002, 0),
 (1002, 'package', 1003, 0),
 (1002, 'slow', 1004, 0),
 (1002, 'docs', 1005, 0),
 (1002, 'lint "all" <x>', 1006, 0),
 (1002, 'bench', 1007, 0),
 (1002, 'a-job-with-a-name-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-that-goes-on-', 1008, 0),
 (1002, 'prüfung-日本語-тест', 1009, 1),
 (1002, 'gone', 1011, 0),
 (1002, 'torn', 1012, 0),
 (1007, 'unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken', 1010, 0),
 (1007, 'compile', 1015, 0),
 (1008, 'emacs.x86_64-linux', 1013, 0),
 (1008, 'hello.x86_64-linux', 1014, 0);
INSERT INTO dependency (build_id, needs_id, name) VALUES (1002, 1001, 'compile'), (1003, 1002, 'test'), (1007, 1006, 'lint');
INSERT INTO attempt (build_id, number, worker, status, message, started_at, stopped_at) VALUES
 (1001, 1, 'local', 0, '', 1700000204, 1700000211),
 (1002, 1, 'local', -2, 'the worker could not fetch the sources: unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken', 1700000204, 1700000211),
 (1002, 2, 'local', 1, 'exit status 2', 1700000205, 1700000212),
 (1004, 1, 'local', 3, 'took longer than 60 s', 1700000204, 1700000211),
 (1006, 1, 'local', -1, '', 1700000204, 0),
 (1008, 1, 'local', -2, 'the worker could not fetch the sources', 1700000204, 1700000211),
 (1009, 1, 'local', 1, 'exit status 1', 1700000201, 1700000203),
 (1009, 2, 'local', 0, '', 1700000204, 1700000211),
 (1010, 1, 'local', 1, 'exit status 1', 1700000204, 1700000211),
 (1011, 1, 'local', 1, 'exit status 1', 1700000204, 1700000211),
 (1012, 1, 'local', 1, 'exit status 1', 1700000204, 1700000211);
INSERT INTO definition (build_id, text) VALUES (1002, '{"version":2,"name":"test","command":["/bin/sh","-e","-c","make check unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken\n./long --with ''quotes'' && echo <done>\n"],"environment":{"A_VARIABLE_WITH_A_LONG_NAME_THAT_HAS_NO_BLANK":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","CFLAGS":"-O2 -g"},"system":"x86_64-linux","sources":[{"input":"source","main":true,"url":"https://example.org/sample.git","revision":"3333333333333333333333333333333333333333","submodules":false,"patterns":["src/**","a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/a-long-path/*"],"digest":"0000000000000000000000000000000000000000000000000000000000000000"}],"needs":{},"products":["dist/*"],"description":"Runs every test, <slow> ones too, and prints what fails"}');
INSERT INTO output (build_id, name, path) VALUES (1001, 'out', 'outputs/a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1'), (1013, 'out', '/gnu/store/2123456789abcdfghijklmnpqrsvwxyz-emacs-29.1'), (1013, 'debug', '/gnu/store/3123456789abcdfghijklmnpqrsvwxyz-emacs-29.1-debug');
INSERT INTO product (id, build_id, kind, name, path, bytes, checksum) VALUES
 (1001, 1001, 'file', 'dist/sample-1.0.tar.gz', 'outputs/a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1/dist/sample-1.0.tar.gz', 12345678, 'f679ddea540d2c5383294dd68eda4436f6e30414a85afed52f98633a919cd9c7'),
 (1002, 1001, 'file', 'dist/Grüße 日本語 "quoted".txt', 'outputs/a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1/dist/Grüße 日本語 "quoted".txt', 12345678, 'f2e616367125dd318bcea2c62745d0ba4488738643ec667a1dcb23e8f10df93a'),
 (1003, 1001, 'manual', 'dist/a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-.txt', 'outputs/a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1/dist/a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-a-very-long-name-without-a-blank-.txt', 12345678, '815d6643afdd499b88739df807f1df8573462561170f48db9bb3ebeffe8afb4f');
INSERT INTO audit (id, at, actor, change, build_id, evaluation_id, specification_id, result, reason) VALUES
 (1, 1700000230, 'alice', 'cancel', 1005, 1002, 1001, 'canceled, with 2 builds that need it', ''),
 (2, 1700000240, 'token <deploy> & more', 'restart', 1002, 1002, 1001, 'scheduled', 'The mirror is back.
unbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbrokenunbroken'),
 (3, 1700000250, 'local root', 'evaluate', NULL, NULL, 1001, 'looked at now', 'with <b>markup</b> & more');
INSERT INTO kept_evaluation VALUES (1001);
INSERT INTO withdrawn_evaluation VALUES (1004, NULL), (1002, 1006);
