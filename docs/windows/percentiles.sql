-- fleetscore query test percentiles.sql --input input=percentiles.ndjson -o ndjson
-- PERCENTILE_CONT interpolates at p * (n - 1); PERCENTILE_DISC gives a value that exists.
SELECT PERCENTILE_CONT(0.95) OVER (ORDER BY serviceAvailability) AS cont, PERCENTILE_DISC(0.95) OVER (ORDER BY serviceAvailability) AS disc,
  PERCENTILE_CONT(0.5) OVER (ORDER BY serviceAvailability DESC) AS median, PERCENTILE_DISC(0) OVER (ORDER BY serviceAvailability) AS least
FROM input TIMESTAMP BY TS
GROUP BY TumblingWindow(hours, 1)
