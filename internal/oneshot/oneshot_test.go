package oneshot

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func example(t *testing.T) (models string, cfg Config) {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	b.WriteString("TS,Device,Tag,Value\n")
	for _, tick := range []string{"00", "05", "10"} {
		for _, d := range []string{"1", "2"} {
			for _, tag := range []string{"current", "pressure"} {
				b.WriteString("2026-11-23 10:00:" + tick + "," + d + "," + tag + ",10.5\n")
			}
		}
	}
	data := filepath.Join(dir, "in.csv")
	if err := os.WriteFile(data, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	models = filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	return models, Config{Data: []string{data}, Models: models, Template: "model_{Device}_{Tag}", Key: []string{"Device", "Tag"}, Time: "TS",
		Features: []string{"Value"}, Out: filepath.Join(dir, "out"), Format: "csv", Workers: 2}
}

func read(t *testing.T, cfg Config, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(cfg.Out, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestPackGivesTheSame: a pack gives the same bytes, with the coverage, as the folder
// that it was made from.
func TestPackGivesTheSame(t *testing.T) {
	t.Parallel()
	models, cfg := example(t)
	m, err := Run(t.Context(), cfg)
	if err != nil || m.Rows != 12 || m.Outcomes[fleetscore.Scored] != 4 || m.Outcomes[fleetscore.NoData] != 16 {
		t.Fatalf("got %+v, %v", m, err)
	}
	predictions, coverage := read(t, cfg, "predictions.csv"), read(t, cfg, "coverage.csv")

	src, err := store.OpenFolder(models)
	if err != nil {
		t.Fatal(err)
	}
	pack := t.TempDir()
	dst, err := store.OpenDir(pack)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := fleet.SpecOf("", fleetscore.FleetConfig{Model: cfg.Template}, cfg.Key)
	if err == nil {
		_, err = fleet.Sync(t.Context(), src, dst, spec, fleet.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg.Models, cfg.Template = pack, ""
	if m, err = Run(t.Context(), cfg); err != nil || m.Generation == "" {
		t.Fatalf("got %+v, %v", m, err)
	}
	if got := read(t, cfg, "predictions.csv"); got != predictions {
		t.Errorf("predictions: got\n%s\nwant\n%s", got, predictions)
	}
	if got := read(t, cfg, "coverage.csv"); got != coverage {
		t.Errorf("coverage: got\n%s\nwant\n%s", got, coverage)
	}
	cfg.Models = models
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--model") {
		t.Errorf("a folder without a template: got %v", err)
	}
}

// TestNothingHalfDone: if a run ends early for any reason, the folder has no manifest
// and no partly written result. The next run is complete.
func TestNothingHalfDone(t *testing.T) {
	t.Parallel()
	_, cfg := example(t)
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	whole := read(t, cfg, "predictions.csv")
	for _, stage := range []string{"reading", "scoring", "writing"} {
		ctx, cancel := context.WithCancel(t.Context())
		c := cfg
		c.Stage = func(s Stage) func() {
			if s.Name == stage {
				cancel()
			}
			return func() {}
		}
		if _, err := Run(ctx, c); err == nil {
			t.Fatalf("stopped while %s: no error", stage)
		}
		cancel()
		files, err := os.ReadDir(cfg.Out)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if strings.HasSuffix(f.Name(), ".part") || f.Name() == manifestName && stage != "reading" {
				t.Errorf("stopped while %s: %s is left", stage, f.Name())
			}
			if stage == "scoring" { // any file there is from the run before
				t.Errorf("stopped while %s: %s of the run before stands beside what comes", stage, f.Name())
			}
		}
	}
	if _, err := Run(t.Context(), cfg); err != nil || read(t, cfg, "predictions.csv") != whole {
		t.Errorf("the next run: %v", err)
	}
	read(t, cfg, manifestName)
}

// TestOneColumnPerName: predictions never have two columns of one name.
func TestOneColumnPerName(t *testing.T) {
	t.Parallel()
	_, cfg := example(t)
	for _, c := range []struct {
		features []string
		label    string
		good     bool
	}{
		{[]string{"Value"}, "", true}, {[]string{"Value"}, "Value", true}, {[]string{"Val=Value"}, "Value", true},
		{[]string{"TS=Value"}, "", false}, {[]string{"Tag=Value"}, "", false}, {[]string{"Prediction=Value"}, "", false}, {[]string{"Score=Value"}, "", false},
		{[]string{"Value", "Value"}, "", false}, {[]string{"=Value"}, "", false}, {[]string{"Val="}, "", false},
		{[]string{"Value"}, "Prediction", false}, {[]string{"Truth=Value"}, "Truth", false},
	} {
		cfg.Features, cfg.Label = c.features, c.label
		if _, err := Run(t.Context(), cfg); (err == nil) != c.good || !c.good && !fleetscore.Invalid.Is(err) {
			t.Errorf("features %v, label %q: got %v", c.features, c.label, err)
		}
	}
}

// TestOtherFormatGoes: a run with another output format removes the earlier run's
// predictions, which the new manifest doesn't list.
func TestOtherFormatGoes(t *testing.T) {
	t.Parallel()
	_, cfg := example(t)
	for format, gone := range map[string]string{"csv": "parquet", "parquet": "csv"} {
		cfg.Out = t.TempDir()
		for _, f := range []string{gone, format} {
			cfg.Format = f
			if _, err := Run(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"predictions.", "coverage."} {
			read(t, cfg, name+format)
			if _, err := os.Stat(filepath.Join(cfg.Out, name+gone)); !os.IsNotExist(err) {
				t.Errorf("%s%s is left: %v", name, gone, err)
			}
		}
	}
}

// TestOldTimes: the manifest's time span is right for rows before 1970, too.
func TestOldTimes(t *testing.T) {
	t.Parallel()
	_, cfg := example(t)
	rows := "TS,Device,Tag,Value\n1960-01-01 00:00:01,1,current,10\n1960-01-01 00:00:02,2,current,10\n"
	if err := os.WriteFile(cfg.Data[0], []byte(rows), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if first, last := m.First.String(), m.Last.String(); first != "1960-01-01T00:00:01Z" || last != "1960-01-01T00:00:02Z" {
		t.Errorf("got %s to %s", first, last)
	}
}

// TestDevicesStay: writing to a pipe or a device doesn't put a file in its place.
func TestDevicesStay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		data, _ := os.ReadFile(pipe) // missing data shows in the comparison
		got <- string(data)
	}()
	f, err := OpenFolder(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Write(t.Context(), "pipe", func(w io.Writer) error {
		_, err := io.WriteString(w, "rows")
		return err
	})
	if err != nil || info.SizeBytes != 4 || <-got != "rows" {
		t.Fatalf("got %+v, %v", info, err)
	}
	if st, err := os.Lstat(pipe); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe became %v, %v", st.Mode(), err)
	}
}

// TestArrowGivesTheSame: results in Arrow hold what CSV holds; scored again, they give the
// same, and nothing of a run in another format stays in the folder.
func TestArrowGivesTheSame(t *testing.T) {
	t.Parallel()
	_, cfg := example(t)
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	want, coverage := read(t, cfg, "predictions.csv"), read(t, cfg, "coverage.csv")
	cfg.Format = "arrow"
	m, err := Run(t.Context(), cfg)
	if err != nil || m.Rows != 12 || m.Files["predictions.arrow"].SizeBytes == 0 {
		t.Fatalf("got %+v, %v", m, err)
	}
	for _, old := range []string{"predictions.csv", "coverage.csv"} {
		if _, err := os.Stat(filepath.Join(cfg.Out, old)); !os.IsNotExist(err) {
			t.Errorf("%s of the run before is still there: %v", old, err)
		}
	}
	again := cfg
	again.Data, again.Out, again.Format = []string{filepath.Join(cfg.Out, "predictions.arrow")}, filepath.Join(cfg.Out, "again"), "csv"
	if _, err := Run(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	// The input's texts of times are kept in CSV; Arrow holds instants.
	sameTimes := func(s string) string {
		return strings.NewReplacer("2026-11-23 10:00:", "2026-11-23T10:00:", "Z,", ",").Replace(s)
	}
	if got := read(t, again, "predictions.csv"); sameTimes(got) != sameTimes(want) {
		t.Errorf("scored from Arrow:\n%s\nfrom CSV:\n%s", got, want)
	}
	if got := read(t, again, "coverage.csv"); sameTimes(got) != sameTimes(coverage) {
		t.Errorf("coverage from Arrow:\n%s\nfrom CSV:\n%s", got, coverage)
	}
}
