-- When a node registered first; 0 means not yet.
ALTER TABLE nodes ADD COLUMN registered INTEGER NOT NULL DEFAULT 0;
