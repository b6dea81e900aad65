-- fleetscore query check refused-long.sql
-- A window is at most 7 days long.
SELECT COUNT(*) AS N FROM input TIMESTAMP BY TS
GROUP BY TumblingWindow(day, 8)
