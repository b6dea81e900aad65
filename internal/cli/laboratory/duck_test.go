package laboratory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// same is one query in our dialect and in DuckDB's. Both give the same columns.
type same struct{ name, ours, theirs string }

const (
	aggregatesOurs = `COUNT(*) AS n, COUNT(Value) AS c, COUNT(DISTINCT Value) AS d, SUM(Value) AS s, AVG(Value) AS a, MIN(Value) AS lo, MAX(Value) AS hi, STDEV(Value) AS sd, STDEVP(Value) AS sdp,
		VAR(Value) AS v, VARP(Value) AS vp, PERCENTILE_CONT(0.9) OVER (ORDER BY Value) AS pc, PERCENTILE_DISC(0.3) OVER (ORDER BY Value) AS pd, SUM(Value * Tag - 1) AS e, SUM(CASE WHEN Value > 3 THEN 1 ELSE 0 END) AS above`
	aggregatesTheirs = `count(*), count(Value), count(distinct Value), sum(Value), avg(Value), min(Value), max(Value), stddev_samp(Value), stddev_pop(Value),
		var_samp(Value), var_pop(Value), quantile_cont(Value, 0.9), quantile_disc(Value, 0.3), sum(Value * Tag - 1), sum(case when Value > 3 then 1 else 0 end)`
	stamp = "DATEDIFF(microsecond, '1970-01-01', System.Timestamp()) AS t"
	from  = " FROM r TIMESTAMP BY TS "
)

var sames = []same{
	{"tumbling", "SELECT " + stamp + ", Device, Tag, " + aggregatesOurs + from + "GROUP BY Device, Tag, Tumbling(second, 5)",
		"select (us + 4999999) // 5000000 * 5000000 as t, Device, Tag, " + aggregatesTheirs + " from r group by all"},
	{"offset", "SELECT " + stamp + ", COUNT(*) AS n" + from + "GROUP BY Tumbling(Duration(second, 7), Offset(millisecond, -1))",
		"select (us + 1000 + 6999999) // 7000000 * 7000000 - 1000 as t, count(*) from r group by all"},
	{"hopping", "SELECT " + stamp + ", Device, " + aggregatesOurs + from + "WHERE Value IS NULL OR NOT Value BETWEEN 1 AND 2 GROUP BY Device, Hopping(second, 10, 3)",
		"select (us + 2999999) // 3000000 * 3000000 + k * 3000000 as t, Device, " + aggregatesTheirs + " from r, range(0, 4) as w(k) where (Value is null or not Value between 1 and 2) and (us + 2999999) // 3000000 * 3000000 + k * 3000000 - 10000000 < us group by all"},
	{"sliding", "SELECT " + stamp + ", Device, " + aggregatesOurs + from + "GROUP BY Device, Sliding(second, 3)",
		"select i.t, i.Device, " + aggregatesTheirs + " from (select Device, us as t from r union select Device, us + 3000000 from r) i join r on r.Device = i.Device and r.us > i.t - 3000000 and r.us <= i.t group by all"},
	{"snapshot", "SELECT " + stamp + ", COUNT(*) AS n, SUM(Value) AS s" + from + "GROUP BY System.Timestamp()", "select us, count(*), sum(Value) from r group by us"},
	{"session", "SELECT " + stamp + ", Device, COUNT(*) AS n" + from + "GROUP BY Device, SessionWindow(Timeout(millisecond, 1500), MaxDuration(day, 7)) OVER (PARTITION BY Device)",
		`select max(us) + 1500000, Device, count(*) from (select *, sum(opens) over (partition by Device order by us) as s from
		 (select *, case when us - lag(us) over (partition by Device order by us) <= 1500000 then 0 else 1 end as opens from r)) group by Device, s`},
	{"having", "SELECT " + stamp + ", Device, MAX(Value) - MIN(Value) AS range" + from + "GROUP BY Device, Tumbling(second, 4) HAVING MAX(Value) - MIN(Value) > 2 AND COUNT(*) >= 3",
		"select (us + 3999999) // 4000000 * 4000000 as t, Device, max(Value) - min(Value) from r group by t, Device having max(Value) - min(Value) > 2 and count(*) >= 3"},
	{"steps", "WITH a AS (SELECT Device, Tag, AVG(Value) AS v" + from + "GROUP BY Device, Tag, Tumbling(second, 2)), b AS (SELECT Device, MAX(v) AS v FROM a GROUP BY Device, Tumbling(second, 6)) SELECT " + stamp + ", Device, v FROM b WHERE v > 1",
		"with a as (select (us + 1999999) // 2000000 * 2000000 as t, Device, Tag, avg(Value) as v from r group by all) select (t + 5999999) // 6000000 * 6000000 as u, Device, max(v) from a group by u, Device having max(v) > 1"},
	{"keys", "SELECT DATEPART(second, TS) % 3 AS k, UPPER(Device) + '!' AS d, COUNT(*) AS n" + from + "GROUP BY DATEPART(second, TS) % 3, UPPER(Device), Tumbling(day, 1)",
		"select second(TS) % 3, upper(Device) || '!', count(*) from r group by all"},
	{"first and last", "SELECT " + stamp + ", Device, FIRST(Value) AS f, LAST(Value) AS l, TopOne(N) OVER (ORDER BY Tag DESC, N ASC) AS top" + from + "GROUP BY Device, Tumbling(second, 5)",
		"select (us + 4999999) // 5000000 * 5000000 as t, Device, arg_min(Value, us) filter (Value is not null), arg_max(Value, us) filter (Value is not null), arg_min(N, -Tag * 100000 + N) from r group by t, Device"},
	{"lag", "SELECT N, LAG(N) OVER (PARTITION BY Device LIMIT DURATION(second, 2)) AS l, LAG(N, 3, -1) OVER (PARTITION BY Device LIMIT DURATION(day, 1)) AS three" + from,
		"select N, case when us - lag(us) over w < 2000000 then lag(N) over w end, lag(N, 3, -1) over w from r window w as (partition by Device order by us)"},
	{"moving", "SELECT N, COUNT(*) OVER (PARTITION BY Device LIMIT DURATION(second, 4)) AS n, AVG(Value) OVER (PARTITION BY Device LIMIT DURATION(second, 4)) AS a, MAX(Value) OVER (PARTITION BY Device LIMIT DURATION(second, 4) WHEN Tag = 1) AS m" + from,
		"select N, count(*) over w, avg(Value) over w, max(case when Tag = 1 then Value end) over w from r window w as (partition by Device order by us range between 3999999 preceding and current row)"},
	{"isfirst", "SELECT N, ISFIRST(second, 5) OVER (PARTITION BY Device) AS f" + from,
		"select N, case when row_number() over (partition by Device, (us + 4999999) // 5000000 order by us) = 1 then 1 else 0 end from r"},
	{"reference", "SELECT r.N, limits.[Limit] AS l" + from + "LEFT JOIN limits ON r.Tag = limits.Tag AND r.Value > limits.[Limit]",
		`select r.N, limits."Limit" from r left join limits on r.Tag = limits.Tag::bigint and r.Value > limits."Limit"::double`},
	{"join", "SELECT a.N, b.N AS m FROM r a TIMESTAMP BY TS JOIN r b TIMESTAMP BY TS ON a.Tag = b.Tag AND a.Device <> b.Device AND DATEDIFF(second, a, b) BETWEEN -1 AND 2",
		"select a.N, b.N from r a join r b on a.Tag = b.Tag and a.Device <> b.Device and datediff('second', a.TS, b.TS) between -1 and 2"},
	{"left join", "SELECT a.N, b.N AS m FROM r a TIMESTAMP BY TS LEFT JOIN r b TIMESTAMP BY TS ON a.Tag = b.Tag AND b.Value > 5 AND DATEDIFF(second, a, b) BETWEEN 1 AND 2",
		"select a.N, b.N from r a left join r b on a.Tag = b.Tag and b.Value > 5 and datediff('second', a.TS, b.TS) between 1 and 2"},
	{"functions", `SELECT N, ROUND(Value, 1) AS r, FLOOR(Value) AS f, CEILING(-Value) AS c, ABS(Value - 4) AS a, SQRT(Value) AS q, POWER(Value, 2) AS p, EXP(Value) AS e, SIGN(Value - 2) AS s, CONCAT(Device, '-', Tag) AS k, SUBSTRING(Device, 2, 3) AS sub,
		REPLACE(Device, 'e', 'EE') AS re, LEN(Device) AS len, REVERSE(Device) AS rev, LEFT(Device, 2) AS le, RIGHT(Device, 2) AS ri, CASE WHEN Device LIKE '%v_c%2' THEN 1 ELSE 0 END AS li, DATEDIFF(minute, '2026-11-25T09:59:30Z', TS) AS dm, DATEPART(weekday, TS) AS wd,
		DATEDIFF(microsecond, '1970-01-01', DATEADD(month, 3, TS)) AS dam, CAST(Value AS nvarchar(max)) AS txt, COALESCE(Value, -1) AS co, NULLIF(Tag, 2) AS nu, N / 7 AS di, N % 7 AS mo, CHARINDEX('v', Device) AS ci` + from,
		`select N, round(Value, 1), floor(Value), ceil(-Value), abs(Value - 4), sqrt(Value), pow(Value, 2), exp(Value), sign(Value - 2), concat(Device, '-', Tag), substring(Device, 2, 3),
		replace(Device, 'e', 'EE'), length(Device), reverse(Device), left(Device, 2), right(Device, 2), case when Device like '%v_c%2' then 1 else 0 end, datediff('minute', timestamp '2026-11-25 09:59:30', TS), dayofweek(TS) + 1,
		epoch_us(TS + interval 3 month), replace(Value::varchar, '.0', ''), coalesce(Value, -1), nullif(Tag, 2), N // 7, N % 7, instr(Device, 'v') from r`},
}

// TestDuckDB: DuckDB gives the same rows wherever its SQL can say what ours says.
func TestDuckDB(t *testing.T) {
	t.Parallel()
	python := testkit.Readers(t)
	readings, limits := randomReadings(t), write(t, "limits.csv", "Tag,Limit\n1,2.5\n3,4\n3,5.75\n4,0\n")
	var theirs []string
	for _, s := range sames {
		theirs = append(theirs, s.theirs)
	}
	in, err := json.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	cmd := testkit.Command(t, python, filepath.Join(testkit.Root(t), "internal", "cli", "laboratory", "testdata", "duck.py"), readings, limits)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		stderr := ""
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = string(exit.Stderr)
		}
		t.Fatalf("%v\n%s", err, stderr)
	}
	var answers [][][]any
	d := json.NewDecoder(bytes.NewReader(out))
	d.UseNumber()
	if err := d.Decode(&answers); err != nil {
		t.Fatal(err)
	}
	for i, s := range sames {
		args := []string{"test", write(t, "q.sql", s.ours), "--input", "r=" + readings}
		if s.name == "reference" {
			args = append(args, "--input", "limits="+limits)
		}
		stdout, stderr, err := command(args...)
		if err != nil {
			t.Errorf("%s: %v\n%s", s.name, err, stderr)
			continue
		}
		compareRows(t, s.name, answers[i], stdout)
	}
}

// randomReadings writes readings at random times on a grid of 250 ms. The times of one
// device differ.
func randomReadings(t *testing.T) string {
	r := rand.New(rand.NewPCG(7, 11))
	var b strings.Builder
	used := map[string]bool{}
	begin := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	for n := range 1500 {
		device := fmt.Sprintf("device%d", r.IntN(5))
		at := begin.Add(time.Duration(r.IntN(1200)) * 250 * time.Millisecond)
		if key := device + at.String(); used[key] {
			continue
		} else {
			used[key] = true
		}
		value := strconv.FormatFloat(float64(r.IntN(33))/4, 'f', -1, 64)
		if r.IntN(20) == 0 {
			value = "null"
		} else if !strings.Contains(value, ".") {
			value += ".0"
		}
		fmt.Fprintf(&b, "{\"N\":%d,\"TS\":%q,\"Device\":%q,\"Tag\":%d,\"Value\":%s}\n", n, at.Format("2006-01-02T15:04:05.000Z"), device, 1+r.IntN(3), value)
	}
	return write(t, "r.ndjson", b.String())
}

// compareRows compares rows in any order. Numbers may differ in their last digits.
func compareRows(t *testing.T, name string, theirs [][]any, ours string) {
	var want, got [][]any
	want = theirs
	for line := range strings.Lines(ours) {
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		if _, err := d.Token(); err != nil {
			t.Fatal(err)
		}
		var row []any
		for d.More() { // the members in their order
			if _, err := d.Token(); err != nil {
				t.Fatal(err)
			}
			var v any
			if err := d.Decode(&v); err != nil {
				t.Fatal(err)
			}
			row = append(row, v)
		}
		got = append(got, row)
	}
	if len(want) < 5 || len(want) != len(got) {
		t.Errorf("%s: %d rows, want %d", name, len(got), len(want))
		return
	}
	order := func(a, b []any) int { return strings.Compare(rowText(a), rowText(b)) }
	slices.SortFunc(want, order)
	slices.SortFunc(got, order)
	for i := range want {
		if rowText(want[i]) != rowText(got[i]) {
			t.Errorf("%s: row %d is %v, want %v", name, i, got[i], want[i])
			return
		}
	}
}

func rowText(row []any) string {
	var b strings.Builder
	for _, v := range row {
		if n, ok := v.(json.Number); ok {
			x, _ := n.Float64()
			if math.Abs(x) < 1e-9 {
				x = 0
			}
			fmt.Fprintf(&b, "%.9g|", x)
			if whole, err := n.Int64(); err == nil && math.Abs(x) > 1e9 {
				fmt.Fprintf(&b, "%d|", whole)
			}
			continue
		}
		fmt.Fprintf(&b, "%v|", v)
	}
	return b.String()
}
