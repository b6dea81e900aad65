package oneshot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// column is a column of a CSV file.
func column(t *testing.T, text, name string) (out []string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	at := -1
	for i, n := range strings.Split(lines[0], ",") {
		if n == name {
			at = i
		}
	}
	if at < 0 {
		t.Fatalf("no column %s in %s", name, lines[0])
	}
	for _, line := range lines[1:] {
		out = append(out, strings.Split(line, ",")[at])
	}
	return out
}

// TestRowsWithoutTimes: rows without a time column are scored as those with one, from every
// form of file; with only the results, each row has a line, which is empty where the row
// wasn't scored.
func TestRowsWithoutTimes(t *testing.T) {
	t.Parallel()
	_, cfg := example(t)
	dir := filepath.Dir(cfg.Data[0])
	text := read(t, Config{Out: dir}, "in.csv")
	text = strings.Replace(text, "05,1,pressure,10.5", "05,1,unknown,10.5", 1) // a sensor without a model
	if err := os.WriteFile(cfg.Data[0], []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	timed, err := Run(t.Context(), cfg)
	if err != nil || timed.Rows != 11 || timed.Outcomes[fleetscore.NoModel] != 1 {
		t.Fatalf("with times: got %+v, %v", timed, err)
	}
	scores := column(t, read(t, cfg, "predictions.csv"), "Score")

	// The same rows in the other forms: written by a run whose features are all columns.
	var ndjson strings.Builder
	for i, d := range column(t, text, "Device") {
		ndjson.WriteString(`{"Device":"` + d + `","Tag":"` + column(t, text, "Tag")[i] + `","Value":` + column(t, text, "Value")[i] + "}\n")
	}
	if err := os.WriteFile(filepath.Join(dir, "in.ndjson"), []byte(ndjson.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg.Time, cfg.ResultsOnly = "", true
	inputs := []string{"in.csv", "in.ndjson"}
	for _, format := range []string{"parquet", "arrow"} {
		made := cfg
		made.ResultsOnly, made.Format, made.Out = false, format, filepath.Join(dir, format)
		if _, err := Run(t.Context(), made); err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, filepath.Join(format, "predictions."+format)) // without the unscored row
	}
	for _, in := range inputs {
		cfg.Data = []string{filepath.Join(dir, in)}
		m, err := Run(t.Context(), cfg)
		if err != nil || m.Rows != 11 {
			t.Errorf("%s: got %+v, %v", in, m, err)
			continue
		}
		got := read(t, cfg, "predictions.csv")
		if !strings.HasPrefix(got, "Prediction,Score\n") {
			t.Errorf("%s: other columns than the results: %s", in, got)
		}
		lines := column(t, got, "Score")
		if strings.HasPrefix(in, "in.") {
			if len(lines) != 12 || lines[5] != "" || column(t, got, "Prediction")[5] != "" {
				t.Errorf("%s: the sixth row, whose sensor has no model: got %q", in, lines)
				continue
			}
			lines = append(lines[:5:5], lines[6:]...)
		}
		if strings.Join(lines, " ") != strings.Join(scores, " ") {
			t.Errorf("%s: got %v, want %v", in, lines, scores)
		}
		for _, c := range []string{"first", "last"} {
			if text := strings.Join(column(t, read(t, cfg, "coverage.csv"), c), ""); text != "" {
				t.Errorf("%s: the coverage has times: %s", in, text)
			}
		}
	}
}

// TestRowsAreNamedByNumber: messages about rows without times name their places.
func TestRowsAreNamedByNumber(t *testing.T) {
	t.Parallel()
	_, cfg := example(t)
	text := strings.Replace(read(t, Config{Out: filepath.Dir(cfg.Data[0])}, "in.csv"), "10,2,current,10.5", "10,2,current,", 1)
	if err := os.WriteFile(cfg.Data[0], []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg.Time = ""
	m, err := Run(t.Context(), cfg)
	if err != nil || len(m.Causes) != 1 || !strings.Contains(m.Causes[0].Reason, "Value is missing in row 11;") {
		t.Errorf("got %+v, %v", m, err)
	}
	to := fleetscore.Micros(1)
	for _, lacks := range []Config{{To: &to}, {From: &to}, {BadRows: 1}} {
		odd := cfg
		odd.Time, odd.ResultsOnly, odd.From, odd.To, odd.BadRows = "TS", true, lacks.From, lacks.To, lacks.BadRows
		if _, err := Run(t.Context(), odd); err == nil || !strings.Contains(err.Error(), "no row may be left out") {
			t.Errorf("results for each row, with rows that may be left out: got %v", err)
		}
	}
	cfg.To = &to
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--time") {
		t.Errorf("an interval without times: got %v", err)
	}
}
