package python_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestMain(m *testing.M) {
	sandbox.Main()
	goleak.VerifyTestMain(m)
}

// folder is models in a folder, by the key as the file's name.
type folder string

func (f folder) Original(_ context.Context, k fleetscore.Key) ([]byte, string, fleetscore.Digest, error) {
	data, err := os.ReadFile(filepath.Join(string(f), k.String()))
	return data, k.String(), fleetscore.DigestOf(data), err
}

func (f folder) Model(ctx context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error) {
	data, _, digest, err := f.Original(ctx, k)
	return data, digest, err
}

// values are numbers of which some are null.
type values []*float64

type expectation struct {
	Prediction []float64
	Score      values
}

// fleet makes the mixed fleet and what plain Python predicts with it.
func fleet(t *testing.T, interpreter string) (dir string, rows [][]float64, expected map[string]expectation) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "fleet")
	if out, err := testkit.Command(t, interpreter, "-B", filepath.Join("testdata", "mixed.py"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Rows     [][]float64
		Expected map[string]expectation
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "models"), all.Rows, all.Expected
}

// rowsOf gives every sensor the same rows.
func rowsOf(keys []fleetscore.Key, rows [][]float64) *fleetscore.Rows {
	out := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"sensor"}, ValueNames: []string{"a", "b"}, Keys: keys, Values: make([][]float64, 2)}
	for k := range keys {
		for i, r := range rows {
			out.KeyIndex = append(out.KeyIndex, uint32(k))
			out.Times = append(out.Times, fleetscore.Micros(i+1)*1_000_000)
			out.Values[0], out.Values[1] = append(out.Values[0], r[0]), append(out.Values[1], r[1])
		}
	}
	return out
}

// journal keeps log lines.
type journal struct {
	mu    sync.Mutex // guards what follows
	lines []string
}

func (j *journal) printf(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

func newPool(t *testing.T, cfg python.Config) *python.Pool {
	t.Helper()
	p, err := python.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, p)
	return p
}

// TestMixedFleet: every good model of a fleet of many kinds is scored as plain Python
// scores it, and every bad one is named with its cause, whatever it does to its process.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	interpreter := testkit.ModelsVenv(t)
	dir, rows, expected := fleet(t, interpreter)
	code, err := filepath.Abs(filepath.Join("testdata", "code"))
	if err != nil {
		t.Fatal(err)
	}
	pool := newPool(t, python.Config{Python: interpreter, Path: []string{code}, Processes: 2, MemoryBytes: 1 << 30, Sandbox: sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe"})})
	bad := map[string]struct {
		outcome fleetscore.Outcome
		cause   string
	}{
		"endless": {fleetscore.TimedOut, "not done after 10s"},
		"glutton": {fleetscore.Failed, "more memory than it may take"},
		"quitter": {fleetscore.Failed, "exit code 3; its last words: and its error"},
		"crasher": {fleetscore.Failed, "signal 11"},
		"short":   {fleetscore.Failed, "for 50 rows"},
		"raiser":  {fleetscore.Failed, "ValueError: no such pump"},
		"text":    {fleetscore.Failed, "can't be loaded by Python"},
	}
	plain := newPool(t, python.Config{Python: interpreter}) // without folders of code
	one := []fleetscore.Key{"native"}
	if got, err := scorer.Score(t.Context(), scorer.Spec{Features: []string{"a", "b"}, Use: fleetscore.RuntimePython, Foreign: plain}, rowsOf(one, rows), one, folder(dir)); err != nil || got.Items[0].Outcome != fleetscore.Scored {
		t.Errorf("without folders of code: %+v, %v", got, err)
	}
	for _, use := range []fleetscore.RuntimeName{fleetscore.RuntimePython, fleetscore.RuntimeAuto} {
		var keys []fleetscore.Key
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if use == fleetscore.RuntimeAuto && !slices.Contains([]string{"native", "custom", "raiser", "onnx"}, f.Name()) {
				continue
			}
			keys = append(keys, fleetscore.Key(f.Name()))
		}
		var log, out journal
		spec := scorer.Spec{Features: []string{"a", "b"}, ModelTimeout: 10 * time.Second, Workers: 2, Use: use, Foreign: pool, Log: log.printf, Print: out.printf}
		got, err := scorer.Score(t.Context(), spec, rowsOf(keys, rows), keys, folder(dir))
		if err != nil {
			t.Fatal(err)
		}
		scored, good := 0, 0
		for _, it := range got.Items {
			name := it.Key.String()
			if _, ok := expected[name]; ok {
				good++
			}
			if want, ok := bad[name]; ok {
				if it.Outcome != want.outcome || !strings.Contains(it.Reason, want.cause) {
					t.Errorf("%s: %s ended %s: %s; want %s: …%s…", use, name, it.Outcome, it.Reason, want.outcome, want.cause)
				}
				continue
			}
			if it.Outcome != fleetscore.Scored {
				t.Errorf("%s: %s ended %s: %s", use, name, it.Outcome, it.Reason)
				continue
			}
			scored++
		}
		if scored != good || good < 3 {
			t.Errorf("%s: %d sensors were scored, want %d", use, scored, good)
		}
		at := map[string]int{}
		for i, k := range got.Predictions.KeyIndex {
			name := got.Predictions.Keys[k].String()
			want, n := expected[name], at[name]
			at[name]++
			p, s := got.Predictions.Prediction[i], got.Predictions.Score[i]
			if math.Abs(p-want.Prediction[n]) > 1e-12 || (want.Score[n] == nil) != math.IsNaN(s) || want.Score[n] != nil && math.Abs(s-*want.Score[n]) > 1e-9 {
				t.Fatalf("%s: row %d of %s is %v, %v, want %v, %v", use, n, name, p, s, want.Prediction[n], want.Score[n])
			}
		}
		if use == fleetscore.RuntimeAuto {
			continue
		}
		for of, words := range map[*journal][]string{&out: {"talker: a word from the talker", "quitter: before the end", "Python: a program of its own"}, &log: {"talker printed: and an error", "Python printed: and its error", "in predict"}} {
			for _, word := range words {
				if text := of.String(); !strings.Contains(text, word) {
					t.Errorf("%s: the log lacks %q:\n%s", use, word, text)
				}
			}
		}
		if text := out.String(); strings.Contains(text, "error") || strings.Contains(text, "in predict") {
			t.Errorf("%s: what isn't standard output is in it:\n%s", use, text)
		}
	} // Six times a model ends its process or has it ended. A package that starts threads costs one process of each slot.
	if n := pool.Started(); n > 4 {
		t.Errorf("libraries were imported by %d processes, want at most 4", n)
	}
}
