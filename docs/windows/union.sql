-- fleetscore query test union.sql --input input=union.ndjson --input other=union-other.ndjson -o ndjson
SELECT Device, Value AS Reading FROM input TIMESTAMP BY TS WHERE Value > 5
UNION
SELECT Id, V FROM other TIMESTAMP BY At
