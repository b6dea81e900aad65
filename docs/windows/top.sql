-- fleetscore query test top.sql --input input=top.ndjson -o ndjson
SELECT TopOne() OVER (ORDER BY ServiceAvailability DESC) AS best, TopOne(Regions) OVER (ORDER BY ServiceAvailability ASC) AS worst,
  CollectTop(2, Regions) OVER (ORDER BY ServiceAvailability DESC) AS two, Collect(Regions) AS allRegions
FROM input TIMESTAMP BY TS
GROUP BY Tumbling(second, 10)
