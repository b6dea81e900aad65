-- fleetscore query test epoch.sql --input input=epoch.ndjson -o ndjson
-- Times from numbers, and events of two kinds. A plain number of milliseconds since 1970 is a
-- time by itself, as in a hub.
SELECT System.Timestamp() AS TS, kind
FROM input TIMESTAMP BY (CASE kind WHEN 'A' THEN DATEADD(millisecond, ms, '1970-01-01T00:00:00Z') WHEN 'B' THEN CAST([text] AS datetime) WHEN 'D' THEN ms ELSE NULL END)
