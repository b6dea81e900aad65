-- fleetscore query test look-back.sql --input input=look-back.ndjson -o ndjson
-- LAG, LAST and ISFIRST look back from each event, before WHERE, and for no longer than LIMIT
-- DURATION: an event exactly that long ago no longer counts.
SELECT Device, Value, LAG(Value) OVER (PARTITION BY Device LIMIT DURATION(second, 10)) AS before, LAG(Value, 2, -1) OVER (LIMIT DURATION(minute, 1)) AS two,
  LAST(Value) OVER (PARTITION BY Device LIMIT DURATION(minute, 1) WHEN Value > 3) AS lastAbove3, LAST(System.Timestamp()) OVER (LIMIT DURATION(minute, 1) WHEN Value IS NULL) AS gap,
  ISFIRST(second, 5) OVER (PARTITION BY Device WHEN Value > 1) AS first
FROM input TIMESTAMP BY TS
WHERE Value <> 2
