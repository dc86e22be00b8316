-- Rows of version 7: people and programs that may log in.
INSERT INTO user VALUES (1, 'alice', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$ZGlnZXN0', 1700000800, 0),
 (2, 'bob', '', 1700000801, 1700000900);
INSERT INTO user_role VALUES (1, '', 'admin'), (2, 'main/hello', 'builder');
INSERT INTO session VALUES (1, 1, x'00ff', '192.0.2.1', 1700000802, 1700000803);
INSERT INTO token VALUES (1, 'deploy', x'01', 'main', 'reader', 1700000804, 0, 1700000804);
