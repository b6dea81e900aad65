-- The servers that share this ledger; times are the database's. A "report" is what a server
-- says of itself to the others. "nodes" is the SHA-256 of the secret of the nodes that it
-- starts, as 64 hexadecimal digits.
CREATE TABLE servers (
    id      TEXT        NOT NULL PRIMARY KEY,
    name    TEXT        NOT NULL,
    url     TEXT        NOT NULL,
    version TEXT        NOT NULL,
    nodes   TEXT        NOT NULL,
    report  TEXT        NOT NULL,
    started TIMESTAMPTZ NOT NULL,
    seen    TIMESTAMPTZ NOT NULL,
    ended   BOOLEAN     NOT NULL
);
