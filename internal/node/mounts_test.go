package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// mounting is a server that wants nodes to have a mount, and has it measured. Its only task
// uses the mount.
type mounting struct {
	preparing
	mount fleetscore.Mount

	measured chan dispatch.MountMeasured
	given    bool
	lost     chan struct{} // closed when a heartbeat has brought the measurement
	once     sync.Once
}

func (m *mounting) Register(context.Context, dispatch.Hello) (dispatch.Welcome, error) {
	return dispatch.Welcome{Node: fleetscore.Node{State: fleetscore.NodePreparing}, Mounts: []fleetscore.Mount{m.mount}}, nil
}

func (m *mounting) Heartbeat(_ context.Context, _ fleetscore.NodeID, r dispatch.HeartbeatRequest) (reply dispatch.HeartbeatReply, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.given {
		m.given = true
		reply.Measure = []dispatch.MountOrder{{ID: "m1", Mount: m.mount, SizeBytes: 1 << 20, Files: 5}}
	}
	for _, a := range r.Measured {
		m.measured <- a
		m.once.Do(func() { close(m.lost) })
	}
	return reply, nil
}

func (m *mounting) Lease(ctx context.Context, _ fleetscore.NodeID, _ dispatch.LeaseRequest) (dispatch.LeaseReply, error) {
	m.mu.Lock()
	m.asked = true
	m.mu.Unlock()
	<-ctx.Done()
	return dispatch.LeaseReply{}, ctx.Err()
}

// TestMounts: a node without a mount of its pool is unusable before it asks for tasks. A node
// that loses one says so, and ends. While it works it measures what the server asks for.
func TestMounts(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	start := func(path string) (*mounting, func() error) {
		writable := false
		m := &mounting{mount: fleetscore.Mount{Name: "history", MountConfig: fleetscore.MountConfig{Path: path, ReadOnly: &writable}}, measured: make(chan dispatch.MountMeasured, 10), lost: make(chan struct{})}
		n, err := New(Config{Hello: dispatch.Hello{Node: "n", Pool: "cpu", Slots: 2}, Heartbeat: 20 * time.Millisecond, MountEvery: 20 * time.Millisecond, Mounts: []string{root}}, Deps{Server: m})
		if err != nil {
			t.Fatal(err)
		}
		return m, func() error { return n.Run(t.Context()) }
	}
	absent, run := start(filepath.Join(root, "absent"))
	if err := run(); err == nil || !strings.Contains(err.Error(), "there is no folder") {
		t.Errorf("without its mount the node ended with %v", err)
	}
	if len(absent.how) != 1 || !strings.Contains(absent.how[0].Error, "check mount history: there is no folder") || absent.asked || !absent.bye {
		t.Errorf("the server was told %q; the node asked for tasks: %v, said goodbye: %v", absent.how, absent.asked, absent.bye)
	}

	folder := filepath.Join(root, "history")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	there, run := start(folder)
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	<-there.lost
	if a := <-there.measured; a.ID != "m1" || a.Report.ReadBytes == 0 || a.Report.WriteBytes == 0 || a.Report.Verdict == fleetscore.MountUnusable {
		t.Errorf("it measured %+v", a)
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "there is no folder") {
		t.Errorf("a node that lost its mount ended with %v", err)
	}
	there.mu.Lock()
	defer there.mu.Unlock()
	if len(there.how) != 2 || there.how[0].Error != "" || !strings.Contains(there.how[1].Error, "there is no folder") || !there.asked || !there.bye {
		t.Errorf("the server was told %q; the node asked for tasks: %v, said goodbye: %v", there.how, there.asked, there.bye)
	}
	if len(there.measured) > 0 {
		t.Errorf("an answer was sent twice: %+v", <-there.measured)
	}
}

// TestTaskWithoutMount: a task whose mount is away fails as one whose store is away does: it
// uses up no try.
func TestTaskWithoutMount(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	n, err := New(Config{Hello: dispatch.Hello{Node: "n", Pool: "cpu", Slots: 1}, Mounts: []string{root}}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.score(t.Context(), dispatch.Lease{Mounts: []fleetscore.Mount{{Name: "history", MountConfig: fleetscore.MountConfig{Path: filepath.Join(root, "absent")}}}}, &taskLog{n: n})
	if !fleetscore.Unavailable.Is(err) || dispatch.EndOf(dispatch.Result{Error: err.Error(), Kind: fleetscore.KindOf(err).String()}) != dispatch.Unavailable {
		t.Errorf("it failed with %v, want kind unavailable", err)
	}
}
