-- fleetscore query test no-zone.sql --input input=no-zone.ndjson -o ndjson
-- A time without a zone is UTC; one with an offset is the same instant. Units may be in the plural, and AS may be left out.
SELECT System.Timestamp() TS, COUNT(*) AS N
FROM input TIMESTAMP BY TS
GROUP BY TumblingWindow(seconds, 1)
