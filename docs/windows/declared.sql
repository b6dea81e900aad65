-- fleetscore query test declared.sql --input input=declared.ndjson -o ndjson
-- CREATE TABLE declares types. An event that doesn't fit is left out.
CREATE TABLE input (TS datetime, Value float);
SELECT TS, Value, GetType(Value) AS Type FROM input TIMESTAMP BY TS
