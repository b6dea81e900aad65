-- fleetscore query test policy-over.sql --input input=policy-over.ndjson --arrival Arrived --late 5m --disorder 2m --early 5m --events -o ndjson
-- The same events with OVER: each device has a watermark of its own, so that no event is out
-- of order. Lateness is judged as before.
SELECT Device, COUNT(*) AS N FROM input TIMESTAMP BY TS OVER Device
GROUP BY Device, TumblingWindow(minute, 5)
