-- fleetscore query test policy-defaults.sql --input input=policy-defaults.ndjson --arrival Arrived --events -o ndjson
-- Without flags the policies are the service's: late after 5 s, no disorder, early from 5 minutes on, and late and out-of-order events move. An event exactly
-- at a tolerance keeps its time. The column TS of an event that moved keeps its value.
SELECT TS FROM input TIMESTAMP BY TS
