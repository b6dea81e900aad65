-- fleetscore query test policy-order.sql --input input=policy-order.ndjson --arrival Arrived --late 1m --disorder 2s --policy adjust --events -o ndjson
-- The second event is 5 s behind the first and moves to the watermark, 2 s behind it. The
-- third one is late first, then out of order: 60 s before its arrival is still behind the
-- watermark. An event exactly at a tolerance keeps its time.
SELECT Device FROM input TIMESTAMP BY TS
