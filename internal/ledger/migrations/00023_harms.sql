-- What models did is kept for each pipeline that scored them, because pipelines score the
-- same models in different ways. Records from before don't name the pipeline.
DROP TABLE harms;
CREATE TABLE harms (
    fleet    TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    sensor   TEXT NOT NULL,
    doc      TEXT NOT NULL,
    PRIMARY KEY (fleet, pipeline, sensor)
) WITHOUT ROWID;
