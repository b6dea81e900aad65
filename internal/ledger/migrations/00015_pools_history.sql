-- How many tasks of ended jobs succeeded and failed in each pool, so that formulas can see it
-- and nobody counts them one by one. Those of other jobs are counted when they are needed.
CREATE TABLE pool_tasks (
    pool      TEXT PRIMARY KEY,
    succeeded INTEGER NOT NULL,
    failed    INTEGER NOT NULL
) WITHOUT ROWID;

-- About how many bytes an ended job takes, with its tasks and attempts; 0 before its end.
ALTER TABLE jobs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_bytes ON jobs (ended, seq, bytes) WHERE ended > 0;
