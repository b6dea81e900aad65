-- In containers of which image a node runs, and a task has to run; empty means of none.
ALTER TABLE nodes ADD COLUMN image TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN image TEXT NOT NULL DEFAULT '';
