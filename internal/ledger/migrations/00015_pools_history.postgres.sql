
-- Since when the holder leads, by the database's clock.
ALTER TABLE leader ADD COLUMN since TIMESTAMPTZ NOT NULL DEFAULT '-infinity';
