-- fleetscore query test session-maximum.sql --input input=session-maximum.ndjson -o ndjson
-- Sessions are checked at the multiples of 10 minutes only, and cut if they are at least 10 minutes
-- long then. The session that begins at 10:03 is 7 minutes long at 10:10, and is cut at 10:20: the event
-- on the check belongs to the session before it. The next session begins at 10:20, and is cut at
-- 10:30; the one after it at 10:40.
SELECT System.Timestamp() AS TS, COUNT(*) AS N, MIN(Minute) AS First, MAX(Minute) AS Last
FROM input TIMESTAMP BY TS
GROUP BY SessionWindow(Timeout(minute, 5), MaxDuration(minute, 10))
