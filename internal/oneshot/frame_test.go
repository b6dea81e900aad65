package oneshot

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table/ipc"
)

// frameOf is a frame whose rows are these bytes.
func frameOf(t *testing.T, rows []byte) *Frame {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	f := &Frame{Ready: strings.NewReader(readyText), Rows: file("rows"), Results: file("results"), Coverage: file("coverage")}
	if _, err := f.Rows.Write(rows); err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t *testing.T, f *os.File) []byte {
	t.Helper()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestFrame: a DataFrame has the results and the coverage that its rows have in a file, as Arrow and as CSV. A row whose
// sensor has no model has NaN, whatever the memory for results held before.
func TestFrame(t *testing.T) {
	t.Parallel()
	_, cfg := example(t)
	text := strings.Replace(read(t, Config{Out: filepath.Dir(cfg.Data[0])}, "in.csv"), "05,1,pressure,10.5", "05,1,unknown,10.5", 1)
	if err := os.WriteFile(cfg.Data[0], []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg.ResultsOnly = true
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	cfg.ResultsOnly = false
	coverage := read(t, cfg, "coverage.csv")
	var want []float64
	for _, name := range []string{"Prediction", "Score"} {
		for _, s := range column(t, read(t, cfg, "predictions.csv"), name) {
			x := math.NaN()
			if s != "" {
				var err error
				if x, err = strconv.ParseFloat(s, 64); err != nil {
					t.Fatal(err)
				}
			}
			want = append(want, x)
		}
	}
	for form, rows := range map[string][]byte{"CSV": []byte(text), "Arrow": arrowOf(t, text)} {
		cfg.Frame = frameOf(t, rows)
		if _, err := cfg.Frame.Results.Write(bytes.Repeat([]byte{1}, 1000)); err != nil {
			t.Fatal(err)
		}
		m, err := Run(t.Context(), cfg)
		if err != nil || m.Rows != 11 || m.Outcomes[fleetscore.NoModel] != 1 {
			t.Errorf("%s: got %+v, %v", form, m, err)
			continue
		}
		got := make([]float64, len(want))
		if data := content(t, cfg.Frame.Results); len(data) != 8*len(want) {
			t.Errorf("%s: %d bytes of results, want %d", form, len(data), 8*len(want))
		} else if _, err := binary.Decode(data, binary.NativeEndian, got); err != nil {
			t.Error(err)
		}
		for i := range want {
			if got[i] != want[i] && !(got[i] != got[i] && want[i] != want[i]) {
				t.Errorf("%s: number %d of the results is %v, want %v", form, i, got[i], want[i])
			}
		}
		text := strings.NewReplacer("2026-11-23T10:00:", "2026-11-23 10:00:", "Z,", ",").Replace(string(content(t, cfg.Frame.Coverage)))
		if diff := cmp.Diff(coverage, text); diff != "" {
			t.Errorf("%s: coverage (-want +got):\n%s", form, diff)
		}
	}
}

// arrowOf is a stream of Arrow with the rows of a CSV file.
func arrowOf(t *testing.T, text string) []byte {
	t.Helper()
	p := &fleetscore.Predictions{Rows: fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device", "Tag"}, ValueNames: []string{"Value"}, Values: make([][]float64, 1)}}
	_, cfg := example(t)
	cfg.Format, cfg.ResultsOnly, cfg.Data[0] = "arrow", false, filepath.Join(t.TempDir(), "in.csv")
	if err := os.WriteFile(cfg.Data[0], []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &run{cfg: cfg, m: &Manifest{Seconds: map[string]float64{}, CPUSeconds: map[string]float64{}}}
	in, err := r.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Rows = *in.Rows
	p.Prediction, p.Score = in.Rows.Values[0], in.Rows.Values[0]
	var b bytes.Buffer
	if err := ipc.WritePredictions(&b, p); err != nil {
		t.Fatal(err)
	}
	// A file of Arrow is a stream between its first 8 bytes and its footer.
	stream := b.Bytes()[8:]
	return stream
}

// TestFrameThatIsNotReady: if the program that hands over the rows ends before they are complete, nothing is scored.
func TestFrameThatIsNotReady(t *testing.T) {
	t.Parallel()
	_, cfg := example(t)
	for _, said := range []io.Reader{strings.NewReader(""), strings.NewReader(readyText[1:]), strings.NewReader("ready or not")} {
		cfg.Frame = frameOf(t, []byte("TS,Device,Tag,Value\n2026-11-23 10:00:00,1,current,10.5\n"))
		cfg.Frame.Ready = said
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "before they were complete") {
			t.Errorf("got %v", err)
		}
		if n := len(content(t, cfg.Frame.Results)) + len(content(t, cfg.Frame.Coverage)); n > 0 {
			t.Errorf("%d bytes of results are there", n)
		}
	}
}

// TestFrameThatCannotBeScored: what is wrong is said, and of rows and models the models first.
func TestFrameThatCannotBeScored(t *testing.T) {
	t.Parallel()
	_, good := example(t)
	const rows = "TS,Device,Tag,Value\n2026-11-23 10:00:00,1,current,10.5\n"
	for name, c := range map[string]struct {
		rows   string
		change func(*Config)
		want   string
	}{
		"no models": {"", func(c *Config) { c.Models = filepath.Join(t.TempDir(), "none") }, "set --models"},
		"no rows":   {"", func(*Config) {}, "the DataFrame"},
		"no column": {rows, func(c *Config) { c.Features = []string{"Valeu"} }, "Valeu"},
		"no Arrow":  {"\xff\xff\xff\xff\xff\x00\x00\x00\x01", func(*Config) {}, "not a sound Arrow file"},
		"no room": {rows, func(c *Config) {
			var err error
			if c.Frame.Results, err = os.Open(c.Frame.Results.Name()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Frame.Results.Close() })
		}, "no memory for the results"},
		"no file": {rows, func(c *Config) { c.Frame.Results = c.Frame.Rows; c.Frame.Results.Close() }, "the DataFrame"},
	} {
		cfg := good
		cfg.Frame = frameOf(t, []byte(c.rows))
		c.change(&cfg)
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
