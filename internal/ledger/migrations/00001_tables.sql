-- +goose Up

-- Times are microseconds since 1970-01-01 UTC; 0 means none. A "doc" is the JSON
-- of the root package's type; the columns beside it are what is searched for.

CREATE TABLE configs (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    applied INTEGER NOT NULL,
    yaml    TEXT    NOT NULL,
    doc     TEXT    NOT NULL
);

CREATE TABLE schedules (
    pipeline  TEXT PRIMARY KEY,
    created   INTEGER NOT NULL,
    next_from INTEGER NOT NULL,
    last_due  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE occurrences (
    pipeline TEXT    NOT NULL,
    due      INTEGER NOT NULL,
    state    TEXT    NOT NULL,
    job      TEXT    NOT NULL,
    reason   TEXT    NOT NULL,
    PRIMARY KEY (pipeline, due)
) WITHOUT ROWID;

-- seq orders jobs by their making.
CREATE TABLE jobs (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE,
    pipeline TEXT NOT NULL,
    state    TEXT NOT NULL,
    doc      TEXT NOT NULL
);
CREATE INDEX jobs_by_pipeline ON jobs (pipeline, seq);
CREATE INDEX jobs_by_state ON jobs (state, seq);

-- What a planned job reads, until it ended.
CREATE TABLE inputs (
    job TEXT PRIMARY KEY,
    doc TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE tasks (
    id         TEXT PRIMARY KEY,
    job        TEXT    NOT NULL,
    job_seq    INTEGER NOT NULL,
    idx        INTEGER NOT NULL,
    pool       TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    not_before INTEGER NOT NULL,
    doc        TEXT    NOT NULL
) WITHOUT ROWID;
CREATE INDEX tasks_by_job ON tasks (job, idx);
CREATE INDEX tasks_queue ON tasks (pool, state, job_seq, idx) WHERE state IN ('queued', 'leased');

-- Results of tasks, until their job ended.
CREATE TABLE results (
    task TEXT PRIMARY KEY,
    job  TEXT NOT NULL,
    doc  TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX results_by_job ON results (job);

CREATE TABLE attempts (
    lease   TEXT PRIMARY KEY,
    task    TEXT    NOT NULL,
    job     TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    node    TEXT    NOT NULL,
    state   TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    started INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    ended   INTEGER NOT NULL,
    UNIQUE (task, number)
) WITHOUT ROWID;
CREATE INDEX attempts_leased ON attempts (node, expires) WHERE state = 'leased';

CREATE TABLE nodes (
    id         TEXT PRIMARY KEY,
    pool       TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    slots      INTEGER NOT NULL,
    host       TEXT    NOT NULL,
    pid        INTEGER NOT NULL,
    version    TEXT    NOT NULL,
    started    INTEGER NOT NULL,
    heartbeat  INTEGER NOT NULL,
    idle_since INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    who     TEXT    NOT NULL,
    what    TEXT    NOT NULL,
    subject TEXT    NOT NULL
);
