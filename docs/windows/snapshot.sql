-- fleetscore query test snapshot.sql --input input=snapshot.ndjson -o ndjson
-- GROUP BY System.Timestamp() groups the events of one instant.
SELECT System.Timestamp() AS TS, Topic, COUNT(*) AS N
FROM input TIMESTAMP BY CreatedAt
GROUP BY Topic, System.Timestamp()
