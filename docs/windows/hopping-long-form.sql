-- fleetscore query test hopping-long-form.sql --input input=hopping-long-form.ndjson -o ndjson
SELECT System.Timestamp() AS TS, COUNT(*) AS N
FROM input TIMESTAMP BY TS
GROUP BY Hopping(Duration(minute, 1), Hop(second, 20), Offset(millisecond, -1))
