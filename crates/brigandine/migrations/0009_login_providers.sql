-- Whom a provider of OpenID Connect knows as which user. These users have no password.
CREATE TABLE subject (
  subject TEXT NOT NULL,             -- the issuer, a blank, and the subject that the issuer gives to nobody else
  user_id INTEGER NOT NULL REFERENCES user (id),
  PRIMARY KEY (subject)
) STRICT, WITHOUT ROWID;
