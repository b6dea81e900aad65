package pool

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
)

// TestAssign: which images new nodes have, and which nodes give way to them.
func TestAssign(t *testing.T) {
	t.Parallel()
	nodes := func(text string) (out []fleetscore.Node) { // IMAGE:RUNNING, of two slots; with a "d" the node drains
		for i, f := range strings.Fields(text) {
			n := fleetscore.Node{ID: fleetscore.NodeID(fmt.Sprint("n", i)), Slots: 2, State: fleetscore.NodeIdle, Image: f[:1], Running: int(f[2] - '0')}
			if n.Running > 0 {
				n.State = fleetscore.NodeRunning
			}
			if strings.HasSuffix(f, "d") {
				n.State = fleetscore.NodeDraining
			}
			out = append(out, n)
		}
		return out
	}
	a, b, all := func(n int64) ledger.QueuedImage { return ledger.QueuedImage{Image: "a", Tasks: n} }, func(n int64) ledger.QueuedImage { return ledger.QueuedImage{Image: "b", Tasks: n} }, func(n int64) ledger.QueuedImage { return ledger.QueuedImage{Tasks: n} }
	for _, c := range []struct {
		what   string
		queued []ledger.QueuedImage
		nodes  string
		starts int
		want   string
	}{
		{"nothing waits", nil, "a:0", 1, "[] []"},
		{"as many as the tasks need", []ledger.QueuedImage{a(3), b(1)}, "", 4, "[a a b] []"},
		{"no more than are started", []ledger.QueuedImage{a(9), b(1)}, "", 2, "[a a] []"},
		{"some have room", []ledger.QueuedImage{a(3)}, "a:1 a:0", 2, "[] []"},
		{"some have too little room", []ledger.QueuedImage{a(4)}, "a:1 a:0", 2, "[a] []"},
		{"any will do", []ledger.QueuedImage{all(3)}, "b:0", 2, "[] []"},
		{"an idle one of an old image gives way", []ledger.QueuedImage{a(1)}, "b:1 b:0", 0, "[] [n1]"},
		{"as many as are needed", []ledger.QueuedImage{a(3)}, "b:0 b:0 b:0", 0, "[] [n0 n1]"},
		{"not if it could take tasks", []ledger.QueuedImage{a(1), b(1)}, "a:2 b:0", 0, "[] []"},
		{"not if others are started", []ledger.QueuedImage{a(2)}, "b:0", 1, "[a] []"},
		{"a busy one, or the first task would wait for all of its tasks", []ledger.QueuedImage{a(1), b(9)}, "b:2 b:1", 0, "[] [n1]"},
		{"no other one while a busy one gives way", []ledger.QueuedImage{a(1), b(9)}, "b:2 b:1d b:1", 0, "[] []"},
		{"nor an idle one", []ledger.QueuedImage{a(1)}, "b:1d b:0", 0, "[] []"},
		{"not for a later task", []ledger.QueuedImage{b(9), a(1)}, "b:2 b:1", 0, "[] []"},
		{"only once", []ledger.QueuedImage{a(9), b(9)}, "b:2 a:2", 0, "[] []"},
	} {
		images, giveWay := assign(c.queued, 2, nodes(c.nodes), c.starts)
		if got := fmt.Sprint(images, giveWay); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// TestApart: how many nodes several images need.
func TestApart(t *testing.T) {
	t.Parallel()
	node := func(image string, running int) fleetscore.Node {
		return fleetscore.Node{Image: image, Running: running, Slots: 2, State: fleetscore.NodeIdle}
	}
	draining := node("a", 2)
	draining.State = fleetscore.NodeDraining
	for _, c := range []struct {
		what   string
		queued []ledger.QueuedImage
		nodes  []fleetscore.Node
		want   int
	}{
		{"nothing", nil, nil, 0},
		{"any node will do", []ledger.QueuedImage{{Tasks: 9}}, nil, 0},
		{"one for each image", []ledger.QueuedImage{{Image: "a", Tasks: 1}, {Image: "b", Tasks: 2}, {Tasks: 1}}, nil, 2},
		{"more for more tasks", []ledger.QueuedImage{{Image: "a", Tasks: 3}, {Image: "b", Tasks: 1}}, nil, 3},
		{"those that work count", []ledger.QueuedImage{{Image: "b", Tasks: 1}}, []fleetscore.Node{node("a", 1), node("a", 1), node("c", 0), draining}, 3},
		{"there is room in one", []ledger.QueuedImage{{Image: "a", Tasks: 1}, {Image: "b", Tasks: 1}}, []fleetscore.Node{node("a", 1)}, 2},
	} {
		if got := apart(c.queued, 2, c.nodes); got != c.want {
			t.Errorf("%s: %d nodes, want %d", c.what, got, c.want)
		}
	}
}

// fetches is a provider that notes the images which it is to fetch.
type fetches struct {
	*asked
	images chan string
}

func (f fetches) Fetch(_ context.Context, image string) error {
	f.images <- image
	return nil
}

// TestImagesAtOnce: the nodes of several images that tasks wait for start at the same time, although one node has slots
// enough; and while a pool may have one node only, all images are fetched at once, each once. A pool that may have no
// node fetches none.
func TestImagesAtOnce(t *testing.T) {
	t.Parallel()
	for _, most := range []int{0, 1, 2} {
		p, l, _ := world(t, fleetscore.ScaleConfig{})
		provider := fetches{newAsked(), make(chan string, 9)}
		p.providers = map[string]Provider{Docker: provider}
		p.image = func(context.Context, fleetscore.PoolConfig) (string, error) { return "box@now", nil }
		cfg := fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Provider: Docker, Slots: 4, Scale: fleetscore.ScaleConfig{Max: most, IdleAfter: fleetscore.Duration(time.Hour)}, Docker: &fleetscore.DockerConfig{Image: "box:v1"}}}}
		if _, err := l.PutConfig(t.Context(), time.Now(), "", cfg); err != nil {
			t.Fatal(err)
		}
		planTwo(t, l)
		for range 2 {
			if _, err := p.scale(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		nodes, err := l.Nodes(t.Context(), "cpu")
		if err != nil {
			t.Fatal(err)
		}
		started := map[string]int{}
		for _, n := range nodes {
			started[n.Image]++
		}
		if want := map[int]string{0: "map[]", 1: "map[box@old:1]", 2: "map[box@new:1 box@old:1]"}[most]; fmt.Sprint(started) != want {
			t.Errorf("of at most %d nodes, %v are started, want %s", most, started, want)
		}
		p.mu.Lock()
		running := p.running
		p.running = map[fleetscore.NodeID]Running{}
		p.mu.Unlock()
		for _, r := range running {
			r.Kill()
		}
		p.waits.Wait()
		close(provider.images)
		fetched := map[string]int{}
		for image := range provider.images {
			fetched[image]++
		}
		if want := map[bool]string{false: "map[]", true: "map[box@new:1 box@old:1]"}[most > 0]; fmt.Sprint(fetched) != want {
			t.Errorf("with at most %d nodes, %v are fetched, want %s", most, fetched, want)
		}
	}
}

// planTwo plans a job in each of two images, with a task that waits.
func planTwo(t *testing.T, l ledger.Ledger) {
	t.Helper()
	for _, image := range []string{"box@old", "box@new"} {
		j := fleetscore.Job{ID: fleetscore.JobID(strings.TrimPrefix(image, "box@")), Pipeline: "p", State: fleetscore.JobWaiting, Config: fleetscore.PipelineConfig{Pool: "cpu"}}
		if err := ledgertest.Insert(t.Context(), l, j); err != nil {
			t.Fatal(err)
		}
		j.Image = image
		if err := l.PlanJob(t.Context(), j, []ledger.PlannedTask{{Task: fleetscore.Task{ID: fleetscore.TaskID(j.ID) + ".000", Job: j.ID, State: fleetscore.TaskQueued}}}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNodesFollowTheJobsImages: a pool of one node starts it in the image of the first job,
// although the tag has moved; when that is done, the node gives way to one for the next job.
func TestNodesFollowTheJobsImages(t *testing.T) {
	t.Parallel()
	p, l, _ := world(t, fleetscore.ScaleConfig{Max: 1, IdleAfter: fleetscore.Duration(time.Hour)})
	provider := newAsked()
	p.providers = map[string]Provider{Docker: provider}
	p.image = func(context.Context, fleetscore.PoolConfig) (string, error) { return "box@now", nil }
	cfg := fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Provider: Docker, Slots: 1, Scale: fleetscore.ScaleConfig{Max: 1, IdleAfter: fleetscore.Duration(time.Hour)}, Docker: &fleetscore.DockerConfig{Image: "box:v1"}}}}
	if _, err := l.PutConfig(t.Context(), time.Now(), "", cfg); err != nil {
		t.Fatal(err)
	}
	planTwo(t, l)
	scaled := func() (alive []fleetscore.Node) {
		t.Helper()
		if _, err := p.scale(t.Context()); err != nil {
			t.Fatal(err)
		}
		nodes, err := l.Nodes(t.Context(), "cpu")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if n.State.Works() || n.State.Coming() {
				alive = append(alive, n)
			}
		}
		return alive
	}
	for _, want := range []string{"box@old", "box@new"} {
		alive := scaled()
		if len(alive) == 0 {
			alive = scaled() // the one before has just given way
		}
		if len(alive) != 1 || alive[0].Image != want {
			t.Fatalf("the nodes are %+v, want one with %s", alive, want)
		}
		n, err := l.UpdateNode(t.Context(), alive[0].ID, func(n *fleetscore.Node) error { n.State, n.PID = fleetscore.NodeIdle, 1; return nil })
		if err != nil {
			t.Fatal(err)
		}
		leased, err := l.LeaseTasks(t.Context(), "cpu", n.ID, 9, time.Now(), time.Minute)
		if err != nil || len(leased) != 1 || leased[0].Job.Image != want {
			t.Fatalf("node with %s gets %+v, %v", want, leased, err)
		}
		if _, err := l.EndAttempt(t.Context(), leased[0].Attempt.Lease, time.Now(), func(ls ledger.Leased) (ledger.AttemptEnd, error) {
			ls.Task.State = fleetscore.TaskSucceeded
			return ledger.AttemptEnd{State: "succeeded", Task: ls.Task}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if alive := scaled(); len(alive) != 1 {
		t.Errorf("without work the nodes are %+v, want one that rests", alive)
	}
	p.mu.Lock()
	running := p.running
	p.running = map[fleetscore.NodeID]Running{}
	p.mu.Unlock()
	for _, r := range running {
		r.Kill()
	}
	p.waits.Wait()
}
