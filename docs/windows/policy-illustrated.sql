-- fleetscore query test policy-illustrated.sql --input input=policy-illustrated.ndjson --arrival Arrived --late 5m --disorder 2m --early 5m --events -o ndjson
-- The example of the service's article on time. Its sixth event moves to 12:14 and not to
-- 12:17, because here the watermark is never beyond an arrival.
SELECT Device FROM input TIMESTAMP BY TS
