-- fleetscore query test join.sql --input input=join.ndjson --input exits=join-exits.ndjson -o ndjson
-- JOIN of two streams needs a bound of time. DATEDIFF counts the boundaries that were crossed,
-- so that 10:00:50 and 10:01:10 are a minute apart. A row's stamp is the later time; without
-- a match, the last time at which a match could have come.
SELECT System.Timestamp() AS TS, i.Car, exits.Gate
FROM input i TIMESTAMP BY EntryTime
LEFT JOIN exits TIMESTAMP BY ExitTime
ON i.Car = exits.Car AND DATEDIFF(minute, i, exits) BETWEEN 0 AND 1
