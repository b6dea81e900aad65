package ledgertest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// testSignsOfLife: of many signs of life at the same time each is answered for itself.
// Nodes that nobody knows and names that no database takes spoil none of the others, and
// who claims a lease of another node neither renews it nor takes it away.
func testSignsOfLife(t *testing.T, open Open) {
	t.Helper()
	const nodes = 40
	l, ctx := open(t), t.Context()
	plan(t, l, "j1", nodes)
	held := map[fleetscore.NodeID]fleetscore.LeaseID{}
	var ids []fleetscore.NodeID
	for i := range nodes {
		id := node(t, l, fmt.Sprint("n", i))
		ls := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", id, 1, noon, time.Minute))
		held[id], ids = ls[0].Attempt.Lease, append(ids, id)
	}
	later := noon.Add(30 * time.Second)
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i, id := range ids {
		own, other := held[id], held[ids[(i+1)%nodes]]
		all.Go(func() {
			<-begin
			claims := []fleetscore.LeaseID{other, own, "unknown", "\x00\xff"}
			if i%2 == 1 {
				claims = []fleetscore.LeaseID{other} // its own isn't renewed
			}
			n, revoked, err := l.Renew(ctx, id, claims, &fleetscore.NodeLoad{CPUs: float64(i)}, later, time.Hour)
			want := slices.DeleteFunc(claims, func(l fleetscore.LeaseID) bool { return l == own })
			if err != nil || n.ID != id || n.Running != 1 || !n.Heartbeat.Equal(later) || n.Load == nil || n.Load.CPUs != float64(i) || !slices.Equal(revoked, want) {
				t.Errorf("node %s is %+v, revoked %q, %v; want %q revoked", id, n, revoked, err, want)
			}
		})
		all.Go(func() {
			<-begin
			if _, _, err := l.Renew(ctx, id+"\x00", []fleetscore.LeaseID{own}, nil, later, time.Hour); !fleetscore.NotFound.Is(err) {
				t.Errorf("a node that isn't known: %v, want kind not_found", err)
			}
		})
	}
	close(begin)
	all.Wait()
	expired := must[[]ledger.Leased](t)(l.TakeBack(ctx, ledger.LeaseFilter{ExpiredBefore: noon.Add(2 * time.Minute)}, later, requeue(later)))
	if len(expired) != nodes/2 {
		t.Errorf("%d leases expired, want the %d that only others claimed", len(expired), nodes/2)
	}
	for _, n := range must[[]fleetscore.Node](t)(l.Nodes(ctx, "")) {
		if !n.Heartbeat.Equal(later) {
			t.Errorf("the sign of life of %s is from %s", n.ID, n.Heartbeat)
		}
	}
}

// testSignsWhileWritten: a sign of life that was answered is seen by whoever reads afterwards, also while signs of life are being written.
func testSignsWhileWritten(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	id := node(t, l, "n1")
	var writer sync.WaitGroup
	defer writer.Wait()
	done := make(chan struct{})
	defer close(done)
	writer.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := l.Neglected(ctx, noon, noon); err != nil { // which writes what waits
				t.Error(err)
				return
			}
		}
	})
	for i := range 500 {
		if _, _, err := l.Renew(ctx, id, nil, &fleetscore.NodeLoad{CPUs: float64(i)}, noon, 0); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if n := must[fleetscore.Node](t)(l.Node(ctx, id)); n.Load == nil || n.Load.CPUs != float64(i) {
				t.Fatalf("after sign of life %d a reader finds the load %+v", i, n.Load)
			}
		}
		if list := must[[]fleetscore.Node](t)(l.Nodes(ctx, "cpu")); len(list) != 1 || list[0].Load == nil || list[0].Load.CPUs != float64(i) {
			t.Fatalf("after sign of life %d a reader of all nodes finds %+v", i, list)
		}
	}
}

// testSignsDontWait: a sign of life is answered while the ledger can't write, is seen at once
// by whoever reads, and counts for whoever decides, who waits until it is written.
func testSignsDontWait(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	plan(t, l, "j1", 1)
	id := node(t, l, "n1")
	lease := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", id, 1, noon, time.Minute))[0].Attempt.Lease
	holds, release := make(chan struct{}), make(chan struct{})
	var held sync.WaitGroup
	defer held.Wait()
	let := sync.OnceFunc(func() { close(release) })
	defer let()
	held.Go(func() {
		once := sync.OnceFunc(func() { close(holds) })
		_, err := l.UpdateNode(ctx, id, func(*fleetscore.Node) error {
			once()
			<-release
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-holds
	later := noon.Add(time.Hour)
	for i := range 100 {
		if _, revoked, err := l.Renew(ctx, id, []fleetscore.LeaseID{lease}, &fleetscore.NodeLoad{CPUs: float64(i)}, later.Add(time.Duration(i)*time.Millisecond), time.Minute); err != nil || len(revoked) != 0 {
			t.Fatalf("a sign of life: %v revoked, %v", revoked, err)
		}
	}
	if n := must[fleetscore.Node](t)(l.Node(ctx, id)); !n.Heartbeat.Equal(later.Add(99*time.Millisecond)) || n.Load == nil || n.Load.CPUs != 99 {
		t.Errorf("who reads finds %+v, load %+v; want the last sign of life", n, n.Load)
	}
	let()
	if back := must[[]ledger.Leased](t)(l.TakeBack(ctx, ledger.LeaseFilter{ExpiredBefore: later}, later, requeue(later))); len(back) != 0 {
		t.Errorf("%d leases were taken back that a sign of life had renewed", len(back))
	}
	if got := must[[]fleetscore.Node](t)(l.Neglected(ctx, later, noon)); len(got) != 0 {
		t.Errorf("neglected are %v although they gave a sign of life", got)
	}
	if lost := must[[]fleetscore.Node](t)(l.LoseNodes(ctx, []fleetscore.NodeID{id}, later)); len(lost) != 0 {
		t.Errorf("lost are %v although they gave a sign of life", lost)
	}
}

// testNeglected: who looks after nodes and leases finds those that need it, and only those.
func testNeglected(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	plan(t, l, "j1", 3)
	put := func(id fleetscore.NodeID, state fleetscore.NodeState, ago time.Duration, tasks int) {
		t.Helper()
		node(t, l, string(id))
		if tasks > 0 {
			if ls := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", id, tasks, noon, time.Hour)); len(ls) != tasks {
				t.Fatalf("%s got %d tasks", id, len(ls))
			}
		}
		must[fleetscore.Node](t)(l.UpdateNode(ctx, id, func(n *fleetscore.Node) error {
			n.State, n.Heartbeat = state, noon.Add(-ago)
			return nil
		}))
	}
	put("silent", fleetscore.NodeIdle, time.Minute, 0)
	put("drains", fleetscore.NodeDraining, time.Minute, 1)
	put("works", fleetscore.NodeIdle, time.Second, 1)
	put("starts", fleetscore.NodeStarting, time.Minute, 0)
	put("gone", fleetscore.NodeStopped, time.Second, 1)
	put("went", fleetscore.NodeLost, time.Second, 0)
	put("old", fleetscore.NodeLost, 2*time.Hour, 0)
	ids := func(nodes []fleetscore.Node) (out []fleetscore.NodeID) {
		for _, n := range nodes {
			out = append(out, n.ID)
		}
		slices.Sort(out)
		return out
	}
	before := noon.Add(-15 * time.Second)
	if got, want := ids(must[[]fleetscore.Node](t)(l.Neglected(ctx, before, noon.Add(-time.Hour)))), []fleetscore.NodeID{"drains", "gone", "old", "silent"}; !slices.Equal(got, want) {
		t.Errorf("neglected are %v, want %v", got, want)
	}
	if got, want := ids(must[[]fleetscore.Node](t)(l.Strays(ctx, []string{"cpu", "gpu"}))), []fleetscore.NodeID{"drains", "gone", "old", "starts", "went"}; !slices.Equal(got, want) {
		t.Errorf("strays are %v, want %v", got, want)
	}
	if got := must[[]fleetscore.Node](t)(l.Strays(ctx, nil)); len(got) != 7 {
		t.Errorf("strays of a configuration without pools are %v, want all", ids(got))
	}

	watch, stop := l.Watch(ledger.NodeTopic("drains"))
	defer stop()
	lost := must[[]fleetscore.Node](t)(l.LoseNodes(ctx, []fleetscore.NodeID{"silent", "drains", "works", "starts", "unknown"}, before))
	if got, want := ids(lost), []fleetscore.NodeID{"drains", "silent"}; !slices.Equal(got, want) || lost[0].State != fleetscore.NodeLost {
		t.Errorf("lost are %v, want %v", lost, want)
	}
	<-watch
	for id, want := range map[fleetscore.NodeID]fleetscore.NodeState{"drains": fleetscore.NodeLost, "works": fleetscore.NodeRunning, "starts": fleetscore.NodeStarting} {
		if n := must[fleetscore.Node](t)(l.Node(ctx, id)); n.State != want {
			t.Errorf("%s is %s, want %s", id, n.State, want)
		}
	}
	if got := must[[]fleetscore.Node](t)(l.LoseNodes(ctx, []fleetscore.NodeID{"silent", "drains"}, before)); len(got) != 0 {
		t.Errorf("lost again are %v", ids(got))
	}

	due := func(most, want int) {
		t.Helper()
		if n := must[int](t)(l.TasksDue(ctx, "cpu", most, noon)); n != want {
			t.Errorf("of at most %d tasks %d are due, want %d", most, n, want)
		}
	}
	due(9, 0)
	back := must[[]ledger.Leased](t)(l.TakeBack(ctx, ledger.LeaseFilter{Gone: true}, noon, requeue(noon)))
	if len(back) != 2 {
		t.Errorf("%d leases are taken back, want those of gone and drains", len(back))
	}
	due(9, 2)
	due(1, 1)
	if n := must[int](t)(l.TasksDue(ctx, "gpu", 9, noon)); n != 0 {
		t.Errorf("%d tasks are due in another pool", n)
	}
}

// testTakeBackMany: many leases are taken back, in whatever parts, and one that can't be
// ended holds up none of the others.
func testTakeBackMany(t *testing.T, open Open) {
	t.Helper()
	const tasks = 230
	l, ctx := open(t), t.Context()
	plan(t, l, "j1", tasks)
	n := node(t, l, "n1")
	if ls := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n, tasks, noon, time.Minute)); len(ls) != tasks {
		t.Fatalf("%d tasks were given", len(ls))
	}
	back, err := l.TakeBack(ctx, ledger.LeaseFilter{Node: n}, noon, func(ls ledger.Leased) (ledger.AttemptEnd, error) {
		if ls.Task.Index == 120 {
			return ledger.AttemptEnd{}, fleetscore.Errorf(fleetscore.Corrupt, "decide", string(ls.Task.ID), "it can't be decided")
		}
		return requeue(noon)(ls)
	})
	if len(back) != tasks-1 || !fleetscore.Corrupt.Is(err) {
		t.Errorf("%d leases were taken back, %v; want all but one", len(back), err)
	}
}
