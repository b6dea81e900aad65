-- job_counts counts by itself.

CREATE FUNCTION count_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE job_counts SET n = n - 1 WHERE state = OLD.state;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO job_counts AS c (state, n) VALUES (NEW.state, 1) ON CONFLICT (state) DO UPDATE SET n = c.n + 1;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER jobs_inserted AFTER INSERT OR DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION count_jobs();
CREATE TRIGGER jobs_changed AFTER UPDATE OF state ON jobs FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION count_jobs();

-- The one server that leads. The token grows with each change of the holder; that it is
-- unique makes a transaction that has locked it wait for nothing but a change of it.
CREATE TABLE leader (
    name    TEXT        NOT NULL PRIMARY KEY,
    token   BIGINT      NOT NULL UNIQUE,
    holder  TEXT        NOT NULL,
    who     TEXT        NOT NULL,
    store   TEXT        NOT NULL,
    expires TIMESTAMPTZ NOT NULL
);
