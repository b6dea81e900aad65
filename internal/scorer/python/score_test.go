package python_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// sensorsOf is a batch of some sensors, with a row and a model of no meaning for each.
func sensorsOf(t *testing.T, names ...fleetscore.Key) *scorer.Batch {
	b := &scorer.Batch{TimeName: "TS", KeyNames: []string{"sensor"}, Features: []string{"a"}, Outputs: []string{"a"}, Timeout: 40 * time.Second,
		Columns: [][]float64{nil}, Log: t.Logf, Print: t.Logf}
	for i, name := range names {
		b.Sensors = append(b.Sensors, scorer.BatchSensor{Key: name, Name: string(name), Model: []byte("\x80\x04N."), Rows: 1}) // a pickle of None
		b.Times, b.Columns[0] = append(b.Times, fleetscore.Micros(i)), append(b.Columns[0], 1)
	}
	return b
}

// TestHiddenSensor: a model that never ends and says that another sensor is being scored, or none, isn't given from
// process to process for ever, and is ended as others are.
func TestHiddenSensor(t *testing.T) {
	t.Parallel()
	script, err := filepath.Abs(filepath.Join("testdata", "lies.py"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	fast := func() time.Time { return began.Add(60 * time.Since(began)) } // no sensor is scored for two minutes
	for _, c := range []struct {
		names []fleetscore.Key
		lies  fleetscore.Key
		limit time.Duration
		now   func() time.Time
	}{{[]fleetscore.Key{"first", "999", "last"}, "999", 2 * time.Second, nil}, {[]fleetscore.Key{"-1"}, "-1", 40 * time.Second, fast}} {
		pool := newPool(t, python.Config{Python: testkit.ModelsVenv(t), Script: script, PerModel: true, Processes: 2, Now: c.now})
		b := sensorsOf(t, c.names...)
		b.Timeout = c.limit
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ended := 0
		err = pool.Score(ctx, b, func(i int, e scorer.Ended) {
			if ended++; e.TimedOut != (c.names[i] == c.lies) {
				t.Errorf("%s: %+v", c.names[i], e)
			}
		})
		if err != nil || ended != len(c.names) {
			t.Errorf("%q: %d sensors ended, want %d: %v", c.lies, ended, len(c.names), err)
		}
	}
}

// TestRowsWithoutTimes: a script gets no column of times that there are none of.
func TestRowsWithoutTimes(t *testing.T) {
	t.Parallel()
	script, err := filepath.Abs(filepath.Join("testdata", "columns.py"))
	if err != nil {
		t.Fatal(err)
	}
	pool := newPool(t, python.Config{Python: testkit.ModelsVenv(t), Script: script})
	b := sensorsOf(t, "a", "b")
	b.TimeName, b.Features, b.Outputs = "", []string{"time"}, []string{"time"}
	if err := pool.Score(t.Context(), b, func(i int, e scorer.Ended) {
		if e.Err != nil || len(e.Prediction) != 1 || e.Prediction[0] != 1 {
			t.Errorf("sensor %d: %+v", i, e)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestSlowModelKeepsNobody: while a model takes long, the others of its batch are scored by another process, each once.
func TestSlowModelKeepsNobody(t *testing.T) {
	t.Parallel()
	script, err := filepath.Abs(filepath.Join("testdata", "waits.py"))
	if err != nil {
		t.Fatal(err)
	}
	goOn := filepath.Join(t.TempDir(), "go on")
	pool := newPool(t, python.Config{Python: testkit.ModelsVenv(t), Script: script, PerModel: true, Env: []string{"GO_ON=" + goOn}, Processes: 2})
	names := []fleetscore.Key{"first", "waits", "quits"}
	for i := range 20 {
		names = append(names, fleetscore.Key(fmt.Sprint("other ", i)))
	}
	ended := map[fleetscore.Key]int{}
	by := map[float64]bool{}
	var running atomic.Int64
	err = pool.Score(t.Context(), sensorsOf(t, names...), func(i int, e scorer.Ended) {
		if running.Add(1) != 1 {
			t.Error("ended is called by two goroutines at once")
		}
		defer running.Add(-1)
		ended[names[i]]++
		if (e.Err != nil) != (names[i] == "quits") {
			t.Errorf("%s: %v", names[i], e.Err)
		}
		if e.Err == nil {
			by[e.Prediction[0]] = true
		}
		if len(ended) == len(names)-1 && ended["waits"] == 0 { // it would be too late for them otherwise
			if err := os.WriteFile(goOn, nil, 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if ended[name] != 1 {
			t.Errorf("%s ended %d times, want once", name, ended[name])
		}
	}
	if len(by) < 2 {
		t.Errorf("%d process scored all sensors", len(by))
	}
	scored := 0 // the process that had given its sensors away scores the next batch completely
	if err := pool.Score(t.Context(), sensorsOf(t, "a", "b", "c"), func(_ int, e scorer.Ended) {
		if scored++; e.Err != nil {
			t.Error(e.Err)
		}
	}); err != nil || scored != 3 {
		t.Errorf("of the next batch %d sensors were scored, want 3: %v", scored, err)
	}
}

// TestFirstSensorIsTriedAgain: a sensor whose process ends is scored once more, also if it is the first one of its
// process: the machine may have ended it. One that ends that too has failed.
func TestFirstSensorIsTriedAgain(t *testing.T) {
	t.Parallel()
	script, err := filepath.Abs(filepath.Join("testdata", "once.py"))
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]fleetscore.Key{{"first"}, {"first", "always", "last"}} {
		tries := filepath.Join(t.TempDir(), "tries")
		pool := newPool(t, python.Config{Python: testkit.ModelsVenv(t), Script: script, PerModel: true, Env: []string{"TRIES=" + tries}})
		ended := map[fleetscore.Key]error{}
		if err := pool.Score(t.Context(), sensorsOf(t, names...), func(i int, e scorer.Ended) { ended[names[i]] = e.Err }); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(tries)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			want := map[fleetscore.Key]int{"first": 2, "always": 2, "last": 1}[name]
			if n := strings.Count(string(text), string(name)+"\n"); n != want || (ended[name] != nil) != (name == "always") {
				t.Errorf("of %q, %s was tried %d times and ended with %v; want %d tries", names, name, n, ended[name], want)
			}
		}
	}
}

// TestLinkedFolders: isolated processes find an environment and code whose folders are symbolic links, also relative
// ones on a path that goes through another link.
func TestLinkedFolders(t *testing.T) {
	t.Parallel()
	interpreter, dir := testkit.ModelsVenv(t), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	script := at("score.py")
	for _, err := range []error{
		os.MkdirAll(at("releases/2"), 0o755), os.Mkdir(at("modules"), 0o755),
		os.WriteFile(at("modules/helper.py"), []byte("value = 7.0\n"), 0o644),
		os.WriteFile(script, []byte("import helper\ndef run(model, rows):\n    return [helper.value] * len(rows)\n"), 0o644),
		os.Symlink("releases/2", at("current")), os.Symlink("../../modules", at("releases/2/code")), os.Symlink(filepath.Dir(filepath.Dir(interpreter)), at("venv")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	pool := newPool(t, python.Config{Python: at("venv/bin/python"), Script: script, PerModel: true, Path: []string{at("current/code")}, Sandbox: sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe"})})
	if err := pool.Score(t.Context(), sensorsOf(t, "a"), func(_ int, e scorer.Ended) {
		if e.Err != nil || len(e.Prediction) != 1 || e.Prediction[0] != 7 {
			t.Errorf("%+v", e)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestRelativeInterpreter: the path of an interpreter may begin at the folder where the node was started.
func TestRelativeInterpreter(t *testing.T) {
	t.Parallel()
	interpreter := testkit.ModelsVenv(t)
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(here, interpreter)
	if err != nil {
		t.Fatal(err)
	}
	if home, err := python.FindHome(t.Context(), relative, t.TempDir()); err != nil || home.Executable != interpreter {
		t.Errorf("%s is %+v, %v; want %s", relative, home, err, interpreter)
	}
	if _, err := python.FindHome(t.Context(), "./none", t.TempDir()); !fleetscore.NotFound.Is(err) {
		t.Errorf("an interpreter that isn't there: %v", err)
	}
}
