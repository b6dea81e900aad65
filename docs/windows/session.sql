-- fleetscore query test session.sql --input input=session.ndjson -o ndjson
-- A session ends 2 minutes after its last event. An event exactly then still belongs to it.
SELECT user_id, COUNT(*) AS clicks, MIN(time) AS window_start, System.Timestamp() AS window_end, DATEDIFF(s, MIN(time), System.Timestamp()) AS duration_in_seconds
FROM input TIMESTAMP BY time
GROUP BY user_id, SessionWindow(minute, 2, 60) OVER (PARTITION BY user_id)
