-- Tasks of a lower number are given to nodes first.
ALTER TABLE tasks ADD COLUMN priority INTEGER NOT NULL DEFAULT 1;
DROP INDEX tasks_queued;
CREATE INDEX tasks_queued ON tasks (pool, priority, job_seq, idx) WHERE state = 'queued';
