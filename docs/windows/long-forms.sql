-- fleetscore query test long-forms.sql --input input=long-forms.ndjson -o ndjson
-- Each window has a long form. A hopping window whose hop is its size is a tumbling window.
WITH w AS (
  SELECT System.Window().Id AS Id, System.Timestamp() AS TS, COUNT(*) AS N FROM input TIMESTAMP BY TS
  GROUP BY Windows(Window('tumbling', Tumbling(Duration(ss, 10))), Window('hopping', Hopping(Duration(second, 10), Hop(s, 10))),
    Window('sliding', Sliding(Duration(millisecond, 5000))), Window('session', Session(Timeout(second, 5), MaxDuration(minute, 1)))))
SELECT Id, TS, N FROM w
