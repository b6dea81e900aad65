-- fleetscore query test hopping.sql --input input=hopping.ndjson -o ndjson
-- Windows of 10 seconds that end every 5 seconds; each event is in two of them.
SELECT System.Timestamp() AS TS, COUNT(*) AS N, SUM(Value) AS Sum
FROM input TIMESTAMP BY TS
GROUP BY HoppingWindow(second, 10, 5)
