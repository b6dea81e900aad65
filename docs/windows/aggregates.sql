-- fleetscore query test aggregates.sql --input input=aggregates.ndjson -o ndjson
-- COUNT(*) counts NULLs, the others skip them. The spread of one value is NULL, of the
-- population 0. AVG of whole numbers has a fraction.
SELECT System.Timestamp() AS TS, COUNT(*) AS N, COUNT(x) AS [not null], COUNT(DISTINCT x) AS different, SUM(x) AS sum, AVG(x) AS avg, STDEV(x) AS stdev, STDEVP(x) AS stdevp,
  VAR(x) AS var, VARP(x) AS varp, MIN(x) AS min, MAX(x) AS max, FIRST(x) AS first, LAST(x) AS last, SUM(x * 2) AS doubled, MAX(TS) AS latest
FROM input TIMESTAMP BY TS
GROUP BY TumblingWindow(second, 10)
