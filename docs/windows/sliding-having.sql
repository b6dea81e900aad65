-- fleetscore query test sliding-having.sql --input input=sliding-having.ndjson -o ndjson
-- The toll booths that served more than 2 vehicles in the last 5 minutes.
SELECT DateAdd(minute, -5, System.Timestamp()) AS WinStartTime, System.Timestamp() AS WinEndTime, TollId, COUNT(*)
FROM input TIMESTAMP BY EntryTime
GROUP BY TollId, SlidingWindow(minute, 5)
HAVING COUNT(*) > 2
