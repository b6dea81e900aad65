-- fleetscore query test policy-early.sql --input input=policy-early.ndjson --arrival Arrived --late 5m --disorder 0s --early 5m --events -o ndjson
-- An event more than 5 minutes ahead of its arrival is dropped and moves nothing: one clock
-- in 2099 doesn't end the stream. An event 3 minutes ahead keeps its time, but moves the
-- watermark to its arrival only.
SELECT Device FROM input TIMESTAMP BY TS
