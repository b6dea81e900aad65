-- fleetscore query test replay.sql --input input=replay.ndjson -o ndjson
-- Without arrivals events go by their own time, whatever their order. An event whose time can't
-- be read is left out.
SELECT System.Timestamp() AS TS, COUNT(*) AS N FROM input TIMESTAMP BY TS GROUP BY TumblingWindow(hour, 1)
