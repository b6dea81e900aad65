-- The secret of a token that was replaced: refused from "old_until" on; 0 means that
-- there is none. "old_used" is the hour of its last use after it was replaced.
-- "rotated" is when the secret was replaced last; 0 means never.
ALTER TABLE tokens ADD COLUMN rotated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN old_hash TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN old_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN old_used INTEGER NOT NULL DEFAULT 0;

-- Browsers that are signed in, and links (link = 1) that can sign one in. "id" is the
-- SHA-256 of the secret, as 64 hexadecimal digits.
CREATE TABLE sessions (
    id    TEXT PRIMARY KEY,
    link  INTEGER NOT NULL,
    who   TEXT    NOT NULL,
    begun INTEGER NOT NULL,
    seen  INTEGER NOT NULL,
    ends  INTEGER NOT NULL
) WITHOUT ROWID;
