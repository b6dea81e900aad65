-- Tokens of devices, people, programs and nodes. A secret is never stored, only the
-- SHA-256 of its whole text, as 64 hexadecimal digits. "used" is the hour of the
-- last use; 0 means never, and in "expires" that the token has no end.
CREATE TABLE tokens (
    id      TEXT PRIMARY KEY,
    name    TEXT    NOT NULL UNIQUE,
    role    TEXT    NOT NULL,
    hash    TEXT    NOT NULL,
    created INTEGER NOT NULL,
    used    INTEGER NOT NULL,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
