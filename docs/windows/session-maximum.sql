-- fleetscore query test session-maximum.sql --input input=session-maximum.ndjson -o ndjson
-- Sessions of at most 10 minutes are checked at 0, 10, 20, … only. The session that begins
-- at 10:03 is 7 minutes long at 10:10, and is cut at 10:20: the event on the check belongs
-- to the session before it. The next session begins at 10:20 and is cut at 10:40, not at
-- 10:30, when it is not longer than 10 minutes.
SELECT System.Timestamp() AS TS, COUNT(*) AS N, MIN(Minute) AS First, MAX(Minute) AS Last
FROM input TIMESTAMP BY TS
GROUP BY SessionWindow(Timeout(minute, 5), MaxDuration(minute, 10))
