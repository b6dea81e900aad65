package alone_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/alone"
	"github.com/fleetscore/fleetscore/internal/scorer/scorertest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// asChild makes the test's program a child.
const asChild = "FLEETSCORE_TEST_AS_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(asChild) {
	case "":
		goleak.VerifyTestMain(m)
		return
	case "once": // the first child dies, as if somebody had killed it
		f, err := os.OpenFile(os.Getenv("FLEETSCORE_TEST_MARK"), os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			f.Close()
			serve(scorertest.Hostile{Runtime: crashing{scorertest.Thresholds{}}})
		}
		serve(scorertest.Thresholds{})
	}
	serve(scorertest.Hostile{Runtime: scorertest.Thresholds{}})
}

func serve(r scorer.Runtime) {
	if err := alone.Serve(os.Stdin, os.Stdout, r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// crashing is a runtime whose models can't be loaded without harm.
type crashing struct{ scorer.Runtime }

func (c crashing) Worker() (scorer.Worker, error) {
	w, err := c.Runtime.Worker()
	return crashingWorker{w}, err
}

type crashingWorker struct{ scorer.Worker }

func (crashingWorker) Load(context.Context, []byte) (scorer.Model, error) { panic("by chance") }

func runtimeOf(t *testing.T, how string, l alone.Limits) scorer.Runtime {
	mark := filepath.Join(t.TempDir(), "mark")
	return alone.New(alone.Config{Limits: l, Command: func() (*exec.Cmd, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), asChild+"="+how, "FLEETSCORE_TEST_MARK="+mark)
		return cmd, nil
	}})
}

// TestRuntime: a model that is scored alone is scored as elsewhere.
func TestRuntime(t *testing.T) {
	t.Parallel()
	one, two := scorertest.Threshold{Count: 1, Above: 3}, scorertest.Threshold{Count: 2, Names: []string{"a", "b"}, Above: 5}
	scorertest.Run(t, runtimeOf(t, "yes", alone.Limits{MemoryBytes: 1 << 30}), []scorertest.Sample{
		{Name: "one", Data: one.Bytes(), Traits: scorer.Traits{Features: 1, OutlierDetector: true}, Columns: [][]float64{{1, 5, 3}}, Prediction: []float64{1, -1, 1}},
		{Name: "two", Data: two.Bytes(), Traits: scorer.Traits{Features: 2, Named: true, OutlierDetector: true}, Names: two.Names, Columns: [][]float64{{1, 5, 3}, {1, 1, 3}}, Prediction: []float64{1, -1, -1}},
	}, [][]byte{[]byte("no model"), {}})
}

// many are rows of n sensors, a row each, with the value 1 where harm has no other.
func many(n int, harm map[int]float64) (*fleetscore.Rows, models) {
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Values: make([][]float64, 1)}
	m := models{}
	for i := range n {
		k := fleetscore.Key(fmt.Sprintf("d%05d", i))
		v, bad := harm[i]
		if !bad {
			v = 1
		}
		rows.Keys, rows.KeyIndex, rows.Times = append(rows.Keys, k), append(rows.KeyIndex, uint32(i)), append(rows.Times, 1)
		rows.Values[0] = append(rows.Values[0], v)
		m[k] = scorertest.Threshold{Count: 1, Above: float64(i)}.Bytes()
	}
	return rows, m
}

type models map[fleetscore.Key][]byte

func (m models) Model(_ context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error) {
	return m[k], fleetscore.DigestOf(m[k]), nil
}

// TestCulprits: models that crash, hang and eat memory cost themselves alone, among
// thousands, and quickly.
func TestCulprits(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		testkit.Missing(t, "a limit of memory", "run the test on Linux")
	}
	rows, m := many(10_000, map[int]float64{17: scorertest.Crash, 5000: scorertest.Hang, 9000: scorertest.Eat})
	m["d00100"] = []byte(scorertest.CrashOnLoad)
	began := time.Now()
	r, err := scorer.Score(t.Context(), scorer.Spec{Features: []string{"Value"}, ModelTimeout: 2 * time.Second, Workers: 1,
		Runtime: runtimeOf(t, "yes", alone.Limits{ModelTimeout: 2 * time.Second, MemoryBytes: 512 << 20})}, rows, nil, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("10,000 models, 4 of them harmful: %s", time.Since(began).Round(time.Millisecond))
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	want := map[fleetscore.Key]struct {
		outcome fleetscore.Outcome
		reason  string
	}{
		"d00017": {fleetscore.Failed, "the model ended the process that scored it, twice: signal: killed"},
		"d00100": {fleetscore.Failed, "signal: killed"},
		"d05000": {fleetscore.TimedOut, "not done after 2s"},
		"d09000": {fleetscore.Failed, "out of memory"},
	}
	if c := r.Counts(); c[fleetscore.Scored] != 9996 || r.Predictions.Len() != 9996 || len(r.Harmful) != 4 {
		t.Errorf("outcomes %v, %d rows, harmful are %v", c, r.Predictions.Len(), r.Harmful)
	}
	for _, i := range r.Items {
		w, bad := want[i.Key]
		if bad && (i.Outcome != w.outcome || !strings.Contains(i.Reason, w.reason) || !slices.Contains(r.Harmful, i.Key)) {
			t.Errorf("%s is %s: %s; want %s: %s", i.Key, i.Outcome, i.Reason, w.outcome, w.reason)
		}
		if !bad && i.Outcome != fleetscore.Scored {
			t.Errorf("%s is %s: %s", i.Key, i.Outcome, i.Reason)
		}
	}
}

// TestChance: a child that dies once, as by somebody's mistake, costs no model anything.
func TestChance(t *testing.T) {
	t.Parallel()
	rows, m := many(3, nil)
	r, err := scorer.Score(t.Context(), scorer.Spec{Features: []string{"Value"}, Workers: 1, Runtime: runtimeOf(t, "once", alone.Limits{})}, rows, nil, m)
	if err != nil || r.Counts()[fleetscore.Scored] != 3 || len(r.Harmful) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestLargeModel: a model goes to the child in pieces.
func TestLargeModel(t *testing.T) {
	t.Parallel()
	data := slices.Concat(scorertest.Threshold{Count: 1, Above: 3}.Bytes(), []byte(strings.Repeat(" ", 130<<20)))
	w, err := runtimeOf(t, "yes", alone.Limits{ModelTimeout: time.Minute}).Worker()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if m, err := w.Load(t.Context(), data); err != nil || m.Traits().Features != 1 {
		t.Errorf("%v, %v", m, err)
	}
}

// TestNoChild: if no child can be started, the attempt fails, and no model is blamed.
func TestNoChild(t *testing.T) {
	t.Parallel()
	rows, m := many(3, nil)
	for name, cmd := range map[string]*exec.Cmd{"absent": exec.Command("/nonexistent/program"), "ends at once": exec.Command("false")} {
		r := alone.New(alone.Config{Command: func() (*exec.Cmd, error) { return cmd, nil }})
		if _, err := scorer.Score(t.Context(), scorer.Spec{Features: []string{"Value"}, Runtime: r}, rows, nil, m); !fleetscore.Unavailable.Is(err) {
			t.Errorf("%s: %v, want unavailable", name, err)
		}
	}
}

// TestGivenUp: the end of the context ends a model that hangs, and its process.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	rows, m := many(1, map[int]float64{0: scorertest.Hang})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := scorer.Score(ctx, scorer.Spec{Features: []string{"Value"}, ModelTimeout: time.Hour, Runtime: runtimeOf(t, "yes", alone.Limits{ModelTimeout: time.Hour})}, rows, nil, m)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
