-- fleetscore query test reference.sql --input input=reference.ndjson --input limits=reference-limits.csv -o ndjson
-- JOIN with a table needs no bound of time. The values of CSV are texts; beside numbers they
-- count as numbers.
SELECT i.Device, i.Value, limits.Limit, COALESCE(limits.Name, 'unknown') AS Name
FROM input i TIMESTAMP BY TS
LEFT JOIN limits ON i.Device = limits.Device
WHERE i.Value > limits.Limit OR limits.Device IS NULL
