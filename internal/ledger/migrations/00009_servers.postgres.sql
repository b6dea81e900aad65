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

-- What attempts of tasks wrote, until it lies in the store: servers that share a ledger keep
-- it here, so that it survives the server that took it. "at" is the place of the piece's
-- first byte in its stream.
CREATE TABLE log_pieces (
    lease  TEXT   NOT NULL,
    stream TEXT   NOT NULL,
    at     BIGINT NOT NULL,
    job    TEXT   NOT NULL,
    data   BYTEA  NOT NULL,
    PRIMARY KEY (lease, stream, at)
);
CREATE INDEX log_pieces_by_job ON log_pieces (job);
