-- fleetscore query test policy-drop.sql --input input=policy-drop.ndjson --arrival Arrived --late 5s --disorder 2s --policy drop -o ndjson
-- With drop, the late event and the one out of order are missing from the window, and neither
-- moves the watermark.
SELECT System.Timestamp() AS TS, COUNT(*) AS N, MIN(TS) AS First, MAX(TS) AS Last
FROM input TIMESTAMP BY TS
GROUP BY TumblingWindow(minute, 1)
