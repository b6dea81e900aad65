package pool_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/pool/pooltest"
	"github.com/fleetscore/fleetscore/internal/program"
)

// machines is a folder of scripts that stand for a cloud: a machine is a file.
type machines struct {
	t      *testing.T
	dir    string
	cfg    fleetscore.ExecConfig
	mu     sync.Mutex // guards what follows
	tokens []string   // of the machines that there should be
}

func newMachines(t *testing.T, start, stop string) *machines {
	t.Helper()
	m := &machines{t: t, dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(m.dir, "there"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.cfg = fleetscore.ExecConfig{Start: m.script("start", start), Stop: m.script("stop", stop), List: m.script("list", `ls there`)}
	return m
}

func (m *machines) script(name, text string) []string {
	file := filepath.Join(m.dir, name)
	if err := os.WriteFile(file, []byte("#!/bin/sh\nset -e\n"+text+"\n"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	return []string{file}
}

// provider makes a server's provider of the machines.
func (m *machines) provider() *pool.Exec {
	return pool.NewExec(pool.ExecDeps{ServerURL: "http://127.0.0.1:1", Folders: []string{m.dir}, Secrets: m.dir,
		Pool: func(context.Context, string) (fleetscore.PoolConfig, error) {
			return fleetscore.PoolConfig{Provider: "exec", Exec: &m.cfg}, nil
		},
		Token: func(_ context.Context, machine string) (string, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.tokens = append(m.tokens, machine)
			return "secret-of-" + machine, nil
		},
		Forget: func(_ context.Context, machine string) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.tokens = slices.DeleteFunc(m.tokens, func(s string) bool { return s == machine })
			return nil
		}})
}

func (m *machines) there() []string {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.dir, "there"))
	if err != nil {
		m.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

const (
	startScript = `echo "node $FLEETSCORE_ID is here as $FLEETSCORE_KIND"; touch "there/$FLEETSCORE_MACHINE"`
	stopScript  = `rm -f "there/$FLEETSCORE_MACHINE"`
)

// TestExecProvider runs the conformance suite over commands.
func TestExecProvider(t *testing.T) {
	t.Parallel()
	pooltest.Run(t, func(t *testing.T, b pooltest.Behaviour) pool.Provider {
		switch b {
		case pooltest.Crashing:
			return newMachines(t, startScript+"; echo no luck; exit 7", stopScript).provider()
		case pooltest.Deaf:
			return newMachines(t, startScript, `[ "$FLEETSCORE_STOP" = now ]; `+stopScript).provider()
		case pooltest.Missing:
			m := newMachines(t, startScript, stopScript)
			m.cfg.Start = []string{filepath.Join(m.dir, "nothing")}
			return m.provider()
		}
		return newMachines(t, startScript, stopScript).provider()
	})
}

func vm(i int) fleetscore.Node {
	return fleetscore.Node{ID: fleetscore.NodeID(fmt.Sprintf("vms-abcde%d.node", i)), Pool: "vms", Kind: fleetscore.LowPriority, Slots: 3, State: fleetscore.NodeStarting}
}

// TestExecTellsCommands: a start command gets all that an agent needs, the token in a
// file that is gone afterwards; a machine that stopped leaves no token.
func TestExecTellsCommands(t *testing.T) {
	t.Parallel()
	m := newMachines(t, `touch "there/$FLEETSCORE_MACHINE"
{ echo "$FLEETSCORE_MACHINE $FLEETSCORE_ID $FLEETSCORE_POOL $FLEETSCORE_SLOTS $FLEETSCORE_SERVER $FLEETSCORE_KIND"; cat "$FLEETSCORE_NODE_TOKEN_FILE"; echo "$FLEETSCORE_NODE_TOKEN_FILE"; } > told
env > environment`, stopScript)
	p := m.provider()
	r, err := p.Start(t.Context(), vm(1))
	if err != nil {
		t.Fatal(err)
	}
	r.Stop() // the start command is finished first
	if e := r.Wait(); e.Err != nil {
		t.Fatal(e.Err)
	}
	told, err := os.ReadFile(filepath.Join(m.dir, "told"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(told)), "\n")
	if len(lines) != 3 || lines[0] != "vms-abcde1 vms-abcde1.node vms 3 http://127.0.0.1:1 low_priority" || lines[1] != "secret-of-vms-abcde1" {
		t.Fatalf("the command was told %q", lines)
	}
	if _, err := os.Stat(lines[2]); !os.IsNotExist(err) {
		t.Errorf("the file with the token is still there: %v", err)
	}
	if env, err := os.ReadFile(filepath.Join(m.dir, "environment")); err != nil || strings.Contains(string(env), "secret-of") {
		t.Errorf("the token stands in the command's environment (%v)", err)
	}
	if len(m.there()) != 0 || len(m.tokens) != 0 {
		t.Errorf("machines %v and tokens %v are left", m.there(), m.tokens)
	}
}

// TestExecFailedStart: what a start command made before it failed is stopped.
func TestExecFailedStart(t *testing.T) {
	t.Parallel()
	m := newMachines(t, startScript+"; exit 1", stopScript)
	r, err := m.provider().Start(t.Context(), vm(1))
	if err != nil {
		t.Fatal(err)
	}
	if e := r.Wait(); e.Err == nil || e.Left {
		t.Errorf("a start that failed ended with %+v", e)
	}
	if len(m.there()) != 0 || len(m.tokens) != 0 {
		t.Errorf("machines %v and tokens %v are left", m.there(), m.tokens)
	}
}

// TestExecOutlivesServer: a server that ends leaves its machines, and the next one
// finds and removes them.
func TestExecOutlivesServer(t *testing.T) {
	t.Parallel()
	m := newMachines(t, startScript+"; touch started", stopScript)
	first := m.provider()
	r, err := first.Start(t.Context(), vm(1))
	if err != nil {
		t.Fatal(err)
	}
	for len(m.there()) == 0 {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
	for {
		if _, err := os.Stat(filepath.Join(m.dir, "started")); err == nil {
			break
		}
	}
	first.Leave()
	r.Stop()
	r.Kill()
	if e := r.Wait(); !e.Left {
		t.Errorf("a server's end ended its machine: %+v", e)
	}
	next := m.provider()
	list, err := next.List(t.Context(), "vms")
	if err != nil || !slices.Equal(list, []string{"vms-abcde1"}) {
		t.Fatalf("the next server finds %v, %v", list, err)
	}
	if err := next.Remove(t.Context(), "vms", list[0]); err != nil || len(m.there()) != 0 || len(m.tokens) != 0 {
		t.Errorf("machines %v and tokens %v are left: %v", m.there(), m.tokens, err)
	}
}

// TestExecRefuses: only programs of the allowed folders are run, also if a link leads
// out of them.
func TestExecRefuses(t *testing.T) {
	t.Parallel()
	m := newMachines(t, startScript, stopScript)
	link := filepath.Join(m.dir, "link")
	if err := os.Symlink("/bin/sh", link); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(m.dir, "plain")
	if err := os.WriteFile(plain, []byte("echo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/bin/sh", link, plain, m.dir, filepath.Join(m.dir, "..", "sh"), ""} {
		if err := program.Check([]string{file}, []string{m.dir}); !fleetscore.Invalid.Is(err) {
			t.Errorf("%q: %v, want kind invalid", file, err)
		}
	}
	if err := program.Check(m.cfg.Start, []string{m.dir}); err != nil {
		t.Error(err)
	}
	if err := program.Check(m.cfg.Start, nil); !fleetscore.Invalid.Is(err) {
		t.Errorf("without an allowed folder: %v, want kind invalid", err)
	}
}
