-- fleetscore query test epoch.sql --input input=epoch.ndjson -o ndjson
-- Times from numbers, and events of two kinds.
SELECT System.Timestamp() AS TS, kind
FROM input TIMESTAMP BY (CASE kind WHEN 'A' THEN DATEADD(millisecond, ms, '1970-01-01T00:00:00Z') WHEN 'B' THEN CAST([text] AS datetime) ELSE NULL END)
