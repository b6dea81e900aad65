-- fleetscore query test policy-disorder.sql --input input=policy-disorder.ndjson --disorder 2s --policy drop -o ndjson
-- Without arrivals, --disorder alone judges the order of the file.
SELECT TS FROM input TIMESTAMP BY TS
