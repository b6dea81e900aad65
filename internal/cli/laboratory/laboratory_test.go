package laboratory

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// command runs fleetscore query with these arguments.
func command(args ...string) (stdout, stderr string, err error) {
	cmd := NewCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var out, warn bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&warn)
	cmd.SetArgs(args)
	err = cmd.Execute()
	return out.String(), warn.String(), err
}

// TestVectors runs the command in the first line of each query of docs/windows and
// compares with the rows that are kept beside it.
func TestVectors(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(testkit.Root(t), "docs", "windows")
	files, err := filepath.Glob(filepath.Join(dir, "*.sql"))
	if err != nil || len(files) < 8 {
		t.Fatalf("%d test vectors: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".sql")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			line, _, _ := strings.Cut(string(text), "\n")
			line, ok := strings.CutPrefix(line, "-- fleetscore query ")
			if !ok {
				t.Fatalf("the first line is no command: %s", line)
			}
			args := strings.Fields(line)
			for i, a := range args {
				if in, f, ok := strings.Cut(a, "="); ok {
					args[i] = in + "=" + filepath.Join(dir, f)
				} else if strings.HasSuffix(a, ".sql") {
					args[i] = filepath.Join(dir, a)
				}
			}
			want, err := os.ReadFile(filepath.Join(dir, name+".expected"))
			if err != nil {
				t.Fatal(err)
			}
			got, stderr, err := command(args...)
			if _, refused := strings.CutPrefix(string(want), "error: "); err != nil && refused {
				got = "error: " + err.Error() + "\n"
			} else if err != nil || refused {
				t.Fatalf("%v\n%s", err, got)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, stderr)
			}
		})
	}
}

// write makes a file in a folder of the test and returns its name.
func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestReference: the reference architecture's query over its data, sent again as readings
// in random order, gives exactly the rows of that data.
func TestReference(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(testkit.Reference(t), "sensor_data.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var readings, want []string
	for _, r := range rows[1:] {
		readings = append(readings, fmt.Sprintf(`{"TS":%q,"Device":%q,"Tag":%q,"Value":%s}`, r[0], r[1], r[2], r[3]))
		want = append(want, strings.Join(r, ","))
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(readings), func(i, j int) { readings[i], readings[j] = readings[j], readings[i] })
	query := write(t, "q.sql", `SELECT [Device], [Tag], AVG([Value]) AS [Value], System.TimeStamp AS [TS]
INTO [sensordata] FROM [hub] TIMESTAMP BY [TS] GROUP BY [Device], [Tag], TumblingWindow(second, 5)`)
	stdout, stderr, err := command("test", query, "--input", "hub="+write(t, "hub.ndjson", strings.Join(readings, "\n")), "-o", "ndjson")
	if err != nil || stderr != "" {
		t.Fatalf("%v\n%s", err, stderr)
	}
	var got []string
	var reader jsonRows
	for line := range strings.Lines(stdout) {
		r := reader.read(t, line)
		stamp := strings.TrimSuffix(strings.Replace(r["TS"], "T", " ", 1), "Z")
		got = append(got, fmt.Sprintf("%s.000,%s,%s,%s", stamp, r["Device"], r["Tag"], r["Value"]))
	}
	slices.Sort(got)
	for i, w := range want { // the file writes 84.5 as 84.50 in places
		f := strings.Split(w, ",")
		var x float64
		if _, err := fmt.Sscan(f[3], &x); err != nil {
			t.Fatal(err)
		}
		want[i] = fmt.Sprintf("%s,%s,%s,%v", f[0], f[1], f[2], x)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%.2000s", diff)
	}
}

// TestRefuses: what is wrong with the command, its files and a run.
func TestRefuses(t *testing.T) {
	t.Parallel()
	good := write(t, "good.sql", "SELECT System.Timestamp() AS TS, CAST(V AS bigint) AS V FROM hub TIMESTAMP BY TS")
	plain := write(t, "plain.sql", "SELECT V, COUNT(*) FROM hub GROUP BY V, Tumbling(second, 5)")
	two := write(t, "two.sql", "SELECT a.V FROM hub a TIMESTAMP BY TS JOIN limits ON a.V = limits.V")
	events := write(t, "e.ndjson", "\ufeff{\"TS\":\"2026-11-25T10:00:00Z\",\"V\":1}\n\n{\"TS\":\"2026-11-25T10:00:01Z\",\"V\":\"x\"}\n")
	broken := write(t, "b.ndjson", "{\"V\":1}\n{\"V\":}\n")
	for _, tt := range []struct {
		args string
		want string
	}{
		{good + " --input hub=" + events, `line 3 of input hub: read query line 1, column 34: CAST: "x" can't be converted to bigint (TRY_CAST gives NULL`},
		{good, "line 1, column 62: there is no file for the input hub (add --input hub=FILE.ndjson)"},
		{good + " --input hub=" + events + " --input hbu=x", "the queries have no input hbu (they read hub)"},
		{good + " --input hub=" + events + " --input hub=" + events, "was given before"},
		{good + " --input " + events, "a name and a file are expected"},
		{good + " --input hub=nowhere.ndjson", "read input nowhere.ndjson: no such file"},
		{"nowhere.sql --input hub=x", "read query nowhere.sql: no such file"},
		{good + " --input hub=" + broken, "line 2: "},
		{good + " --input hub=" + events + " --late 5s", "it needs --arrival COLUMN"},
		{good + " --input hub=" + events + " --arrival TS --late 20", "the value is not a number with a unit"},
		{good + " --input hub=" + events + " --arrival TS --late 20d", "can't be converted to bigint"},
		{good + " --input hub=" + events + " --policy revise", "adjust or drop are possible"},
		{good + " --input hub=" + events + " --disorder -5s", "can't be negative"},
		{good + " --input hub=" + events + " --arrival Nothing", "line 1: the column Nothing has no time of arrival"},
		{good + " --input hub=" + events + " --arrival-time", "add --arrival COLUMN"},
		{good + " --input hub=" + events + " -o table", "rows are printed as ndjson"},
		{plain + " --input hub=" + events, "the input hub has no TIMESTAMP BY"},
		{two + " --input hub=" + events, "there is no file for the input limits"},
	} {
		_, _, err := command(append([]string{"test"}, strings.Fields(tt.args)...)...)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.args, err, tt.want)
		}
	}
}

// TestWarnings: what is most likely not meant is said, and doesn't stop the run.
func TestWarnings(t *testing.T) {
	t.Parallel()
	events := write(t, "e.ndjson", `{"TS":"2026-11-25T10:00:00Z","A":"2026-11-25T10:00:00Z","Value":1}
{"TS":"2026-11-25T09:00:00Z","A":"2026-11-25T10:00:00Z","Value":1}
{"TS":"2026-11-25T11:00:00Z","A":"2026-11-25T10:00:00Z","Value":1}
{"TS":5,"A":"2026-11-25T10:00:00Z","Value":1}`)
	query := write(t, "q.sql", "SELECT Vlaue,\n Value FROM hub TIMESTAMP BY TS")
	stdout, stderr, err := command("test", query, "--input", "HUB="+events, "--arrival", "A")
	want := "warning: input hub: 1 event that came late and out of order was adjusted\nwarning: input hub: 1 event that came early was dropped\n" +
		"warning: input hub: 1 event that had no time that can be read was dropped\nwarning: line 1, column 8: no event of input hub has a column Vlaue; is Value meant?\n"
	if err != nil || stderr != want {
		t.Errorf("%v\n%s, want\n%s", err, stderr, want)
	}
	if rows := "{\"Vlaue\":null,\"Value\":1}\n{\"Vlaue\":null,\"Value\":1}\n"; stdout != rows {
		t.Errorf("the rows are %s, want %s", stdout, rows)
	}
}

// TestPlainQueries: queries that don't ask for the time need none, and inputs may be CSV.
func TestPlainQueries(t *testing.T) {
	t.Parallel()
	events := write(t, "e.csv", "Device,Value\n1,2.5\n2,\n1,10\n")
	query := write(t, "q.sql", "\ufeffSELECT *, Value * 2 AS twice INTO out FROM hub WHERE Device = 1 OR Value IS NULL")
	stdout, stderr, err := command("test", query, "--input", "hub="+events)
	want := "{\"Device\":\"1\",\"Value\":\"2.5\",\"twice\":5}\n{\"Device\":\"2\",\"Value\":null,\"twice\":null}\n{\"Device\":\"1\",\"Value\":\"10\",\"twice\":20}\n"
	if err != nil || stderr != "" || stdout != want {
		t.Errorf("%v %s\n%s, want\n%s", err, stderr, stdout, want)
	}
}

// TestCheckAndExplain: a query is judged and explained without data.
func TestCheckAndExplain(t *testing.T) {
	t.Parallel()
	query := write(t, "q.sql", `WITH a AS (SELECT Device, MAX(Value) AS v FROM hub TIMESTAMP BY TS GROUP BY Device, Hopping(second, 10, 5))
SELECT a.*, limits.Name, LAG(v) OVER (PARTITION BY Device LIMIT DURATION(minute, 90)) AS before INTO alerts FROM a JOIN limits ON a.Device = limits.Device`)
	stdout, _, err := command("check", query)
	if err != nil || !strings.HasSuffix(stdout, "q.sql is good: it reads hub, limits and writes alerts\n") {
		t.Errorf("%v: %s", err, stdout)
	}
	stdout, _, err = command("explain", query)
	want := `1. a
   reads    input hub, by the time of the events
   window   hopping, (end - 10s, end], one every 5s
   keys     Device
   columns  Device any, v any
   keeps    2 open windows for each key, with fixed state for each aggregate
2. statement, writes alerts
   reads    a (1.)
   reads    reference data limits, as a whole
   columns  Device any, v any, Name any, before any
   keeps    LAG: events of the last 1h30m; all rows of limits
`
	if err != nil || stdout != want {
		t.Errorf("%v\n%s, want\n%s", err, stdout, want)
	}
	if _, _, err := command("check", write(t, "wrong.sql", "SELECT 1 FRM hub")); err == nil || !strings.Contains(err.Error(), "line 1, column 10") {
		t.Errorf("the error is %v", err)
	}
}
