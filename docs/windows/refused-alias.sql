-- fleetscore query check refused-alias.sql
-- GROUP BY knows no names of the SELECT list.
SELECT Device + '/' + Tag AS Sensor, COUNT(*) AS N FROM input TIMESTAMP BY TS
GROUP BY Sensor, TumblingWindow(second, 5)
