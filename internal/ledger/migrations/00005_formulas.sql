-- What the formula of a pool sees and what it decided. A "doc" is the JSON of a type of
-- package autoscale.
CREATE TABLE pool_samples (
    pool TEXT    NOT NULL,
    at   INTEGER NOT NULL,
    doc  TEXT    NOT NULL,
    PRIMARY KEY (pool, at)
) WITHOUT ROWID;
CREATE INDEX pool_samples_by_time ON pool_samples (at);

CREATE TABLE pool_evaluations (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    pool TEXT    NOT NULL,
    doc  TEXT    NOT NULL
);
CREATE INDEX pool_evaluations_by_pool ON pool_evaluations (pool, seq);
