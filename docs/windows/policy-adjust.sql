-- fleetscore query test policy-adjust.sql --input input=policy-adjust.ndjson --arrival Arrived --late 15s --disorder 8s --policy adjust --events -o ndjson
-- The first event is 40 s old at its arrival and moves to 15 s before it. The last one is 7 s
-- behind the latest event, within the tolerance of 8 s, and keeps its time: the watermark is
-- 10:42 - 8 s. (The service's own documentation moves it to 10:37, which follows from its
-- arrival and not from the rule that is written there.)
SELECT Device FROM input TIMESTAMP BY TS
