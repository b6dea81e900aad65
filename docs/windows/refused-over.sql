-- fleetscore query check refused-over.sql
-- With TIMESTAMP BY ... OVER, the key must be in GROUP BY.
SELECT COUNT(*) AS N FROM input TIMESTAMP BY TS OVER Device
GROUP BY Tag, TumblingWindow(second, 5)
