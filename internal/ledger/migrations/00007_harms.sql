-- What models did to the processes that scored them: a row for each sensor whose model
-- did harm when it was scored last, or is in quarantine.
CREATE TABLE harms (
    fleet  TEXT NOT NULL,
    sensor TEXT NOT NULL,
    doc    TEXT NOT NULL,
    PRIMARY KEY (fleet, sensor)
) WITHOUT ROWID;
