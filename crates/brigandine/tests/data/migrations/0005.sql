-- Rows of version 5: a specification of a project.
INSERT INTO specification (id, name, definition, created_at, removed_at, looked_at, look_error, look_failures, next_look_at, look_wanted_at, look_answered_at, evaluation_id) VALUES
 (4, 'tool', '{"name":"tool","project":"tools","inputs":[],"evaluator":{"kind":"jobs","file":"brigandine.toml"}}', 1700000003, 0, 0, '', 0, 0, 0, 0, NULL);
