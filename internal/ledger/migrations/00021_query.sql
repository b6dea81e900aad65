-- Revisions of rows in the pipeline's dataset were looked for in commits before this
-- version; 0 means in none yet.
ALTER TABLE schedules ADD COLUMN revised BIGINT NOT NULL DEFAULT 0;
