-- What is known of a node besides its life: since when it could take tasks, its kind,
-- why it ended, and what it measured last, as the JSON of the root package's type. Its state "ready" is idle or running, by
-- the leases that it holds.
ALTER TABLE nodes ADD COLUMN usable INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN kind TEXT NOT NULL DEFAULT 'dedicated';
ALTER TABLE nodes ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN log_tail TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN load TEXT NOT NULL DEFAULT '';

-- Of a token by which a node may join: its pool, and the node that has joined by it. Of
-- the credential of a node that has joined: both.
ALTER TABLE tokens ADD COLUMN pool TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN node TEXT NOT NULL DEFAULT '';
