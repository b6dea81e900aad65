-- fleetscore query test policy-arrival-time.sql --input input=policy-arrival-time.ndjson --arrival Arrived --arrival-time --late 1s --policy drop -o ndjson
-- By arrival no event is late, early or out of order.
SELECT System.Timestamp() AS T, TS FROM input TIMESTAMP BY TS
