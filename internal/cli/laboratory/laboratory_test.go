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
			if err != nil {
				t.Fatal(err)
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
