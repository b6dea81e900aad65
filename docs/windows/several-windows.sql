-- fleetscore query test several-windows.sql --input input=several-windows.ndjson -o ndjson
-- Windows() gives the rows of all windows; System.Window().Id tells which one a row is of.
SELECT System.Window().Id, System.Timestamp() AS TS, COUNT(*) AS N
FROM input TIMESTAMP BY TS
GROUP BY Windows(Window('5 s', TumblingWindow(second, 5)), Window('10 s', Hopping(second, 10, 5)), Window('now', System.Timestamp()))
