-- fleetscore query test tumbling-offset.sql --input input=tumbling-offset.ndjson -o ndjson
-- An offset moves the windows. Minus a millisecond puts the event of 10:00:05 into the
-- window that begins there, and shows as an end that is a millisecond earlier.
SELECT System.Timestamp() AS WindowEnd, COUNT(*) AS N
FROM input TIMESTAMP BY TS
GROUP BY TumblingWindow(Duration(second, 5), Offset(millisecond, -1))
