-- Times are microseconds since 1970-01-01 UTC; 0 means none. A "doc" is the JSON
-- of the root package's type; the columns beside it are what is searched for.
-- Every query that runs more often than once a minute has an index that answers
-- it without reading what has ended; a test asks the engine for its plans.

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
CREATE INDEX occurrences_by_due ON occurrences (due, pipeline);

-- seq orders jobs by their making; ended is 0 until then.
CREATE TABLE jobs (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT    NOT NULL UNIQUE,
    pipeline TEXT    NOT NULL,
    state    TEXT    NOT NULL,
    ended    INTEGER NOT NULL,
    doc      TEXT    NOT NULL
);
CREATE INDEX jobs_ended ON jobs (pipeline, ended, seq) WHERE ended > 0;
CREATE INDEX jobs_by_pipeline ON jobs (pipeline, seq);
CREATE INDEX jobs_by_state ON jobs (state, seq);
CREATE INDEX jobs_by_pipeline_state ON jobs (pipeline, state, seq);

-- How many jobs are in each state, so that nobody counts them one by one.
CREATE TABLE job_counts (
    state TEXT PRIMARY KEY,
    n     INTEGER NOT NULL
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
-- The engine takes a partial index only where a query repeats its condition word
-- for word, so each has one state.
CREATE INDEX tasks_queued ON tasks (pool, job_seq, idx) WHERE state = 'queued';
CREATE INDEX tasks_retried ON tasks (pool, not_before) WHERE state = 'queued';
CREATE INDEX tasks_leased ON tasks (pool) WHERE state = 'leased';

-- What each task of a planned job reads, until the job ended.
CREATE TABLE inputs (
    task TEXT PRIMARY KEY,
    job  TEXT NOT NULL,
    doc  TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX inputs_by_job ON inputs (job, task);

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
CREATE INDEX attempts_of_node ON attempts (node) WHERE state = 'leased';
CREATE INDEX attempts_of_job ON attempts (job) WHERE state = 'leased';
CREATE INDEX attempts_expiring ON attempts (expires) WHERE state = 'leased';

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
CREATE INDEX nodes_by_pool ON nodes (pool, started, id);

CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    who     TEXT    NOT NULL,
    what    TEXT    NOT NULL,
    subject TEXT    NOT NULL
);
