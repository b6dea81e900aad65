-- fleetscore query test units.sql --input input=units.ndjson -o ndjson
-- All spellings of the units; each window has its Id. A time without a zone is UTC. An alias needs no AS, and
-- statements need no ; between them. Windows end at multiples since 1970-01-01 UTC, and an event at an end belongs to
-- the window that ends there.
SELECT System.Window().Id Id, System.Timestamp() AS TS, COUNT(*) N INTO long FROM input TIMESTAMP BY TS
GROUP BY Windows(Window('day', Tumbling(day, 1)), Window('dd', Tumbling(dd, 1)), Window('d', Tumbling(d, 1)), Window('days', Tumbling(days, 7)),
  Window('hour', Tumbling(hour, 1)), Window('hh', Tumbling(hh, 1)), Window('hours', Tumbling(hours, 6)))
SELECT System.Window().Id Id, System.Timestamp() AS TS, COUNT(*) N INTO short FROM input TIMESTAMP BY TS
GROUP BY Windows(Window('minute', Tumbling(minute, 1)), Window('mi', Tumbling(mi, 1)), Window('n', Tumbling(n, 1)), Window('minutes', Tumbling(minutes, 30)),
  Window('second', Tumbling(second, 1)), Window('ss', Tumbling(ss, 1)), Window('s', Tumbling(s, 1)), Window('seconds', Tumbling(seconds, 15)))
SELECT System.Window().Id Id, System.Timestamp() AS TS, COUNT(*) N INTO brief FROM input TIMESTAMP BY TS
GROUP BY Windows(Window('millisecond', Tumbling(millisecond, 5)), Window('ms', Tumbling(ms, 5)), Window('microsecond', Tumbling(microsecond, 5)), Window('mcs', Tumbling(mcs, 5)))
