-- fleetscore query check refused-over-join.sql
-- With TIMESTAMP BY ... OVER there is no JOIN with reference data.
SELECT input.Device FROM input TIMESTAMP BY TS OVER Device
JOIN limits ON limits.Device = input.Device
