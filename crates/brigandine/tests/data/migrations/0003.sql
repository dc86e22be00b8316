-- Rows of version 3: files that are still to be deleted, and a build that moved to another specification.
INSERT INTO leftover (path) VALUES ('logs/build/0/99-1.log'), ('outputs/0123456789abcdef');
UPDATE build SET specification_id = 1 WHERE id = 9;
