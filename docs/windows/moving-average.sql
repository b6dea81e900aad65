-- fleetscore query test moving-average.sql --input input=moving-average.ndjson -o ndjson
-- Aggregates with OVER keep one row per event.
SELECT Device, Value, AVG(Value) OVER (PARTITION BY Device LIMIT DURATION(second, 4)) AS average, COUNT(*) OVER (LIMIT DURATION(second, 4)) AS events,
  MAX(Value) OVER (PARTITION BY Device LIMIT DURATION(minute, 1) WHEN Value < 6) AS most
FROM input TIMESTAMP BY TS
