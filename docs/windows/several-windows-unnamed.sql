-- fleetscore query test several-windows-unnamed.sql --input input=several-windows-unnamed.ndjson -o ndjson
SELECT System.Window().Id, System.Timestamp() AS TS, COUNT(*)
FROM input TIMESTAMP BY TS
GROUP BY Windows(TumblingWindow(second, 10), SlidingWindow(second, 20))
