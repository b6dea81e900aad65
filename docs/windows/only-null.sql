-- fleetscore query test only-null.sql --input input=only-null.ndjson -o ndjson
-- Of NULLs alone an aggregate is NULL, and COUNT 0; STDEV and VAR of one value are NULL. A window without events has no row.
SELECT System.Timestamp() AS TS, COUNT(*) AS N, COUNT(x) AS values, SUM(x) AS sum, AVG(x) AS avg, MIN(x) AS min, STDEV(x) AS stdev, VAR(x) AS var
FROM input TIMESTAMP BY TS
GROUP BY TumblingWindow(second, 10)
