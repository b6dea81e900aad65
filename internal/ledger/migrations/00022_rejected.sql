-- Messages with readings that were rejected, so that people can see them and hand them over again. "bytes" is
-- the length of "doc".
CREATE TABLE rejected (
    id    TEXT PRIMARY KEY,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL,
    times INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    doc   TEXT    NOT NULL
) WITHOUT ROWID;
CREATE INDEX rejected_last ON rejected (last, id, bytes);
