-- fleetscore query test snapshot-as-key.sql --input input=snapshot-as-key.ndjson -o ndjson
-- Beside another window, System.Timestamp() is a key: the rows of both inner windows come at
-- the end of the outer one.
WITH PerInterval AS (
    SELECT Topic, [User], COUNT(*)
    FROM input TIMESTAMP BY CreatedAt
    GROUP BY Topic, [User], TumblingWindow(minute, 30)
)
SELECT System.Timestamp() AS TS, Topic, Users = COUNT(*), Total = SUM(count)
FROM PerInterval
GROUP BY Topic, System.Timestamp(), Tumbling(hour, 2)
