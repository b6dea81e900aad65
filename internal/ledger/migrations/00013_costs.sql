-- What the models of a pipeline's jobs cost, as it was measured last.
CREATE TABLE costs (
    pipeline TEXT PRIMARY KEY,
    doc      TEXT NOT NULL
) WITHOUT ROWID;
