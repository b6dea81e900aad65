-- fleetscore query test datediff.sql --input input=datediff.ndjson -o ndjson
-- DATEDIFF counts the boundaries that lie between two times, with a sign: from 10:59:59.9 to 11:00:00.1 it is 1 hour,
-- 1 minute and 1 second, and 200 milliseconds.
SELECT DATEDIFF(hour, A, B) AS h, DATEDIFF(minute, A, B) AS m, DATEDIFF(second, A, B) AS s, DATEDIFF(millisecond, A, B) AS ms, DATEDIFF(hour, B, A) AS back
FROM input TIMESTAMP BY A
