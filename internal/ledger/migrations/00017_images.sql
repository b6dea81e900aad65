-- The repositories of images that a token is for, with blanks between them; empty means all.
ALTER TABLE tokens ADD COLUMN repositories TEXT NOT NULL DEFAULT '';
