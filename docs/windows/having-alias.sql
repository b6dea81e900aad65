-- fleetscore query test having-alias.sql --input input=having-alias.ndjson -o ndjson
-- HAVING may use a name of the SELECT list.
SELECT Device, AVG(Value) AS [average value], System.Timestamp() AS TS
FROM input TIMESTAMP BY TS
GROUP BY Device, TumblingWindow(second, 5)
HAVING [average value] > 3 AND Device <> '2'
