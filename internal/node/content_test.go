package node

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/alone"
)

// TestCode: what Python scores depends on the files of the user's code, the settings and the
// versions of libraries. Where these can't be told, there is no code to compare.
func TestCode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &pythons{interpreter: filepath.Join(dir, "venv", "bin", "python")}
	lease := dispatch.Lease{Runtime: fleetscore.RuntimePython, Python: fleetscore.PythonConfig{Code: filepath.Join(dir, "code")}}
	const site = "venv/lib/python3.14/site-packages/"
	write("code/a.py", "1")
	if got := p.code(lease); got != nil {
		t.Errorf("without libraries: %v", got)
	}
	write(site+"numpy-2.4.6.dist-info/METADATA", "")
	last := p.code(lease)
	if last == nil {
		t.Fatal("there is no code")
	}
	differs := func(what string, want bool) {
		t.Helper()
		now := p.code(lease)
		if now == nil || slices.Equal(now, last) == want {
			t.Errorf("%s: %v, before %v", what, now, last)
		}
		last = now
	}
	differs("nothing", false)
	write("code/__pycache__/a.pyc", "2")
	differs("what Python compiled", false)
	write("code/a.py", "2")
	differs("another text", true)
	write("code/b/c.txt", "")
	differs("another file", true)
	write(site+"pandas-3.1.1.dist-info/METADATA", "")
	differs("another library", true)
	lease.Python.MemoryMB = 1
	differs("another setting", true)

	script := lease
	script.Python.Script = "a.py"
	if got := p.code(script); got != nil {
		t.Errorf("a script that sees many sensors: %v", got)
	}
	script.Python.PerModel = true
	if got := p.code(script); got == nil {
		t.Error("a script that sees one sensor has no code")
	}
	lost := lease
	lost.Python.Code = filepath.Join(dir, "none")
	native := lease
	native.Runtime = fleetscore.RuntimeNative
	for _, l := range []dispatch.Lease{lost, native} {
		if got := p.code(l); got != nil {
			t.Errorf("%+v: %v", l, got)
		}
	}
	write(site+"__editable__.mine-1.pth", "")
	if got := p.code(lease); got != nil {
		t.Errorf("a library that is being worked on: %v", got)
	}
}

// TestAloneOneAfterTheOther: the models of a task that took its node down are scored one after the other, in Python too.
func TestAloneOneAfterTheOther(t *testing.T) {
	t.Parallel()
	n, err := New(Config{Hello: dispatch.Hello{Node: "n", Pool: "cpu", Slots: 4}, Workers: 2}, Deps{Alone: func(alone.Limits) scorer.Runtime { return scorer.Native{} }})
	if err != nil {
		t.Fatal(err)
	}
	for _, is := range []bool{false, true} {
		spec, done := n.spec(t.Context(), nil, dispatch.Lease{Runtime: fleetscore.RuntimePython, Alone: is}, &taskLog{n: n})
		done()
		if once := spec.Workers*spec.Batches == 1; once != is {
			t.Errorf("alone %v: %d workers send %d batches at once", is, spec.Workers, spec.Batches)
		}
	}
}
