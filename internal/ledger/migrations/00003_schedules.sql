-- Due times up to "queued" wait for the end of a job; up to "catch_up" each gets a job
-- of its own; "paused" is since when nothing runs. 0 means none.
ALTER TABLE schedules ADD COLUMN queued INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN catch_up INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
