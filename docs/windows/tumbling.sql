-- fleetscore query test tumbling.sql --input input=tumbling.ndjson -o ndjson
-- Windows are (start, end]: the event of 10:00:05 belongs to the window that ends then, and
-- the event of 10:00:00 to the one before. A window without events gives no row.
SELECT System.Timestamp() AS TS, Device, AVG(Value) AS Value, SUM(Value) AS Sum, MIN(Value) AS Least, MAX(Value) AS Most, COUNT(*) AS N
FROM input TIMESTAMP BY TS
GROUP BY Device, TumblingWindow(second, 5)
