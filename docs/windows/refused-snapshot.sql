-- fleetscore query check refused-snapshot.sql
-- System.Timestamp() inside an expression is no window.
SELECT COUNT(*) AS N FROM input TIMESTAMP BY TS
GROUP BY DATEPART(minute, System.Timestamp())
