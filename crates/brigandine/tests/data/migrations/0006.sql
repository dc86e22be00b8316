-- Rows of version 6: changes that people asked for.
INSERT INTO audit (at, actor, change, build_id, evaluation_id, specification_id, result, reason) VALUES
 (1700000700, 'alice', 'cancel', 6, 2, 1, 'canceled', 'too "slow"'),
 (1700000701, 'local root', 'evaluate', NULL, NULL, 2, 'asked for', '');
