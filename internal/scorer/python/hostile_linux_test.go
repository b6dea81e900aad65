package python_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
	"github.com/fleetscore/fleetscore/internal/scorer/scorertest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestHostileScripts: what scripts and models try against other jobs, the node and the
// machine fails in an isolated process, and works in one that isn't.
func TestHostileScripts(t *testing.T) {
	t.Parallel()
	interpreter := testkit.ModelsVenv(t)
	box := sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe"})
	if !box.Has(sandbox.Namespaces) {
		testkit.Missing(t, "a kernel with user namespaces", box.Describe())
	}
	var attacks []fleetscore.Key
	for _, a := range scorertest.Attacks {
		attacks = append(attacks, fleetscore.Key(a))
	}
	for name, isolated := range map[string]bool{"isolated": true, "not isolated": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := scorertest.NewTarget(t)
			script, err := filepath.Abs(filepath.Join("testdata", "hostile.py"))
			if err != nil {
				t.Fatal(err)
			}
			cfg := python.Config{Python: interpreter, Script: script, Env: []string{"ATTACK=" + a.JSON(t)}, DiskBytes: int64(a.Disk)}
			if isolated {
				cfg.Sandbox = box
			}
			pool, err := python.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var log journal
			spec := scorer.Spec{Features: []string{"a", "b"}, ModelTimeout: time.Minute, Workers: 1, Use: fleetscore.RuntimePython, Foreign: pool, Log: log.printf}
			got, err := scorer.Score(t.Context(), spec, rowsOf(attacks, [][]float64{{1, 2}}), attacks, nothing{})
			if err != nil {
				t.Fatal(err)
			}
			if err := pool.Close(); err != nil {
				t.Fatal(err)
			}
			worked := map[string]bool{}
			for i, k := range got.Predictions.KeyIndex {
				worked[got.Predictions.Keys[k].String()] = got.Predictions.Prediction[i] == 1
			}
			a.Judge(t, worked)
			for _, it := range got.Items {
				if it.Outcome != fleetscore.Scored {
					t.Errorf("%s ended %s: %s", it.Key, it.Outcome, it.Reason)
				}
				if !isolated && scorertest.Hardened(it.Key.String()) {
					continue
				}
				want := !isolated && it.Key != "outlive" // what a process starts is found without walls too
				if worked[it.Key.String()] != want {
					t.Errorf("attack %s: worked is %v\n%s", it.Key, worked[it.Key.String()], log.String())
				}
			}
		})
	}
}

// TestHostileModels: a pickle whose code runs while it is loaded reaches neither the network
// nor other files from an isolated process, and does from one that isn't.
func TestHostileModels(t *testing.T) {
	t.Parallel()
	interpreter := testkit.ModelsVenv(t)
	box := sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe"})
	if !box.Has(sandbox.Namespaces) {
		testkit.Missing(t, "a kernel with user namespaces", box.Describe())
	}
	for name, use := range map[string]*sandbox.Sandbox{"isolated": box, "not isolated": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, models, stolen := scorertest.Listener(t, "tcp4", "127.0.0.1:0"), t.TempDir(), filepath.Join(t.TempDir(), "stolen")
			for sensor, code := range map[string]string{
				"network": fmt.Sprintf("import socket; socket.create_connection(('127.0.0.1', %d)).close()", l.Addr().(*net.TCPAddr).Port),
				"file":    fmt.Sprintf("open(%q, 'w').close()", stolen),
			} {
				size := binary.LittleEndian.AppendUint32(nil, uint32(len(code)))
				pickle := "\x80\x02cbuiltins\nexec\nX" + string(size) + code + "\x85R." // exec(code), in the language of pickles
				if err := os.WriteFile(filepath.Join(models, sensor), []byte(pickle), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			pool := newPool(t, python.Config{Python: interpreter, Sandbox: use})
			keys := []fleetscore.Key{"file", "network"}
			spec := scorer.Spec{Features: []string{"a", "b"}, ModelTimeout: time.Minute, Workers: 1, Use: fleetscore.RuntimePython, Foreign: pool}
			got, err := scorer.Score(t.Context(), spec, rowsOf(keys, [][]float64{{1, 2}}), keys, folder(models))
			if err != nil {
				t.Fatal(err)
			}
			for i, why := range []string{"No such file", "PermissionError"} {
				if it := got.Items[i]; it.Outcome != fleetscore.Failed || (use != nil) != strings.Contains(it.Reason, why) {
					t.Errorf("%s ended %s: %s", it.Key, it.Outcome, it.Reason)
				}
			}
			if _, err := os.Stat(stolen); (err == nil) != (use == nil) {
				t.Errorf("the file was written: %v", err == nil)
			}
			if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			c, err := l.Accept()
			if (err == nil) != (use == nil) {
				t.Errorf("it connected: %v", err == nil)
			}
			if err == nil {
				c.Close()
			}
		})
	}
}

// TestLeftBehind: a process that a script leaves behind ends with its task, though the script's own process would be
// used again, with isolation and without. A task that leaves nothing doesn't end it.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	interpreter := testkit.ModelsVenv(t)
	box := sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe"})
	if !box.Has(sandbox.Namespaces) {
		testkit.Missing(t, "a kernel with user namespaces", box.Describe())
	}
	script, err := filepath.Abs(filepath.Join("testdata", "lingers.py"))
	if err != nil {
		t.Fatal(err)
	}
	for name, use := range map[string]*sandbox.Sandbox{"isolated": box, "not isolated": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seconds := fmt.Sprint(100_000 + rand.IntN(1_000_000_000))
			sleeping := func() (n int) {
				lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
				if err != nil || len(lines) == 0 {
					t.Fatal(lines, err)
				}
				for _, file := range lines {
					if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), "\x00"+seconds) {
						n++
					}
				}
				return n
			}
			pool := newPool(t, python.Config{Python: interpreter, Script: script, Env: []string{"SECONDS=" + seconds}, Sandbox: use})
			score := func(sensor fleetscore.Key) {
				t.Helper()
				keys := []fleetscore.Key{sensor}
				spec := scorer.Spec{Features: []string{"a", "b"}, ModelTimeout: time.Minute, Workers: 1, Use: fleetscore.RuntimePython, Foreign: pool}
				got, err := scorer.Score(t.Context(), spec, rowsOf(keys, [][]float64{{1, 2}}), keys, nothing{})
				if err != nil || got.Items[0].Outcome != fleetscore.Scored {
					t.Fatalf("%v, %+v", err, got.Items)
				}
			}
			score("quiet")
			if idle := pool.Idle(); idle != 1 {
				t.Errorf("after a task that left nothing %d processes wait for the next one, want 1", idle)
			}
			for _, sensor := range []fleetscore.Key{"child", "leaves"} {
				score(sensor)
				if n := sleeping(); n > 0 || pool.Idle() > 0 {
					t.Errorf("%s: after the task %d processes go on, and %d wait for the next task", sensor, n, pool.Idle())
				}
			}
		})
	}
}

// TestHeirs: a process that a script has ended is followed by one that needn't import libraries
// again and finds nothing of it; no process can read the memory of the one that it comes from.
// Processes that have lost their parent and ended don't stay in the list of processes.
func TestHeirs(t *testing.T) {
	t.Parallel()
	interpreter := testkit.ModelsVenv(t)
	box := sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe"})
	if !box.Has(sandbox.Namespaces) {
		testkit.Missing(t, "a kernel with user namespaces", box.Describe())
	}
	script, err := filepath.Abs(filepath.Join("testdata", "heirs.py"))
	if err != nil {
		t.Fatal(err)
	}
	for name, use := range map[string]*sandbox.Sandbox{"isolated": box, "without namespaces": sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe", Without: []sandbox.Layer{sandbox.Namespaces}})} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Log(use.Describe())
			pool := newPool(t, python.Config{Python: interpreter, Script: script, Sandbox: use})
			for _, step := range []struct {
				sensor  fleetscore.Key
				outcome fleetscore.Outcome
				imports int64 // processes that have imported libraries by then; 0 for any number
			}{{"looks", fleetscore.Scored, 1}, {"quits", fleetscore.Failed, 1}, {"looks", fleetscore.Scored, 1}, {"reads", fleetscore.Scored, 1}, {"forks", fleetscore.Scored, 1},
				{"leaves", fleetscore.Failed, 0}, {"looks", fleetscore.Scored, 0}, {"kills", fleetscore.Failed, 0}, {"looks", fleetscore.Scored, 0},
				{"stops", fleetscore.Failed, 0}, {"looks", fleetscore.Scored, 0}} {
				keys := []fleetscore.Key{step.sensor}
				spec := scorer.Spec{Features: []string{"a", "b"}, ModelTimeout: time.Minute, Workers: 1, Use: fleetscore.RuntimePython, Foreign: pool}
				got, err := scorer.Score(t.Context(), spec, rowsOf(keys, [][]float64{{1, 2}}), keys, nothing{})
				if err != nil || got.Items[0].Outcome != step.outcome {
					t.Fatalf("%s: %v, %+v; want %s", step.sensor, err, got.Items, step.outcome)
				}
				if n := pool.Started(); step.imports > 0 && n != step.imports {
					t.Errorf("%s: %d processes have imported libraries, want %d", step.sensor, n, step.imports)
				}
				if (use == box || step.sensor == "forks") && step.outcome == fleetscore.Scored && got.Predictions.Prediction[0] != 0 {
					t.Errorf("%s: it finds what another process has or was", step.sensor)
				}
			}
		})
	}
}

// nothing is models that scripts don't need.
type nothing struct{ folder }

// Original implements scorer.Originals.
func (nothing) Original(_ context.Context, k fleetscore.Key) ([]byte, string, fleetscore.Digest, error) {
	return nil, k.String(), fleetscore.Digest{}, nil
}
