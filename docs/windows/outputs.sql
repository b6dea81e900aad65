-- fleetscore query test outputs.sql --input input=outputs.ndjson -o ndjson
-- Several statements and outputs: steps can be read more than once; a ; between them is optional.
WITH Good AS (SELECT * FROM input TIMESTAMP BY TS WHERE Value IS NOT NULL AND Value < 7),
Averages AS (SELECT Device, AVG(Value) AS Average FROM Good GROUP BY Device, TumblingWindow(second, 5))
SELECT * INTO log FROM Good;
SELECT * INTO alerts FROM Averages WHERE Average > 2
SELECT Device, Average INTO alerts FROM Averages WHERE Average < 2
