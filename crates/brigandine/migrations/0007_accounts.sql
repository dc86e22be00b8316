-- Users with passwords and roles, their sessions, and the access tokens of programs.
CREATE TABLE user (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  password TEXT NOT NULL,            -- its argon2id digest with salt and parameters, in PHC's form
  created_at INTEGER NOT NULL,
  disabled_at INTEGER NOT NULL       -- 0 while the user may log in
) STRICT;
CREATE TABLE user_role (
  user_id INTEGER NOT NULL REFERENCES user (id),
  scope TEXT NOT NULL,               -- empty everywhere, or PROJECT, or PROJECT/SPECIFICATION
  role TEXT NOT NULL,
  PRIMARY KEY (user_id, scope),
  CONSTRAINT "the role is known" CHECK (role IN ('reader', 'builder', 'admin'))
) STRICT, WITHOUT ROWID;
CREATE TABLE session (
  id INTEGER PRIMARY KEY,
  user_id INTEGER NOT NULL REFERENCES user (id),
  digest BLOB NOT NULL,              -- SHA-256 of the secret in the cookie
  client TEXT NOT NULL,              -- the address from which the user logged in
  created_at INTEGER NOT NULL,
  used_at INTEGER NOT NULL           -- to some minutes
) STRICT;
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
