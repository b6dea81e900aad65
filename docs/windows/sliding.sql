-- fleetscore query test sliding.sql --input input=sliding.ndjson -o ndjson
-- A at 34, B at 38 and C at 42 with windows of 5 seconds: a row at each instant at which an
-- event enters or leaves, and none when the window is empty, as at 47.
SELECT System.Timestamp() AS TS, COUNT(*) AS N, MIN(Name) AS First, MAX(Name) AS Last
FROM input TIMESTAMP BY TS
GROUP BY SlidingWindow(second, 5)
