package ledgertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

func testNodes(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	n := node(t, l, "n1")
	want := fleetscore.Node{ID: "n1", Pool: "cpu", Kind: fleetscore.Dedicated, Slots: 2, State: fleetscore.NodeIdle, Started: noon, Heartbeat: noon, IdleSince: noon}
	if d := cmp.Diff(want, must[fleetscore.Node](t)(l.Node(ctx, n))); d != "" {
		t.Errorf("node (-want +got):\n%s", d)
	}
	plan(t, l, "j1", 1)
	if leased := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n, 1, noon, time.Minute)); len(leased) != 1 {
		t.Fatalf("%d tasks were given to the node", len(leased))
	}
	if got := must[fleetscore.Node](t)(l.Node(ctx, n)); got.State != fleetscore.NodeRunning || got.Running != 1 {
		t.Errorf("a node with a task is %s, with %d", got.State, got.Running)
	}
	measured := fleetscore.NodeLoad{At: noon, CPUs: 2, CPUPercent: new(12.5), Missing: "the disk"}
	for _, load := range []*fleetscore.NodeLoad{&measured, nil} { // the second time it has nothing new to say
		if _, _, err := l.Renew(ctx, n, nil, load, noon, 0); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(&measured, must[fleetscore.Node](t)(l.Node(ctx, n)).Load); d != "" {
		t.Errorf("what the node measured (-want +got):\n%s", d)
	}
	plan(t, l, "j2", 1)
	if err := l.SetNodeState(ctx, n, fleetscore.NodeDraining); err != nil {
		t.Fatal(err)
	}
	if _, err := l.LeaseTasks(ctx, "cpu", n, 1, noon, time.Minute); !fleetscore.Conflict.Is(err) {
		t.Errorf("a lease for a draining node = %v, want kind conflict", err)
	}
	if _, _, err := l.Renew(ctx, n, nil, nil, noon.Add(time.Minute), 0); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{l.SetNodeState(ctx, "n9", fleetscore.NodeLost), touch(ctx, l, "n9")} {
		if !fleetscore.NotFound.Is(err) {
			t.Errorf("an unknown node = %v, want kind not_found", err)
		}
	}
	got := must[fleetscore.Node](t)(l.UpdateNode(ctx, "n2", func(n *fleetscore.Node) error {
		*n = fleetscore.Node{ID: n.ID, Pool: "gpu", State: fleetscore.NodeUnusable, Started: noon, Registered: noon.Add(time.Second), Ready: noon.Add(time.Minute),
			Kind: fleetscore.LowPriority, Reason: "its setup command failed", LogTail: "no such package", Load: &measured}
		return nil
	}))
	if d := cmp.Diff(got, must[fleetscore.Node](t)(l.Node(ctx, "n2"))); d != "" {
		t.Errorf("node, as it was written and as it is read (-want +got):\n%s", d)
	}
	if got.ID != "n2" || len(must[[]fleetscore.Node](t)(l.Nodes(ctx, "gpu"))) != 1 || len(must[[]fleetscore.Node](t)(l.Nodes(ctx, ""))) != 2 {
		t.Errorf("after adding %+v the pools hold others", got)
	}
	if err := l.ForgetNodes(ctx, noon); err != nil {
		t.Fatal(err)
	}
	if left := must[[]fleetscore.Node](t)(l.Nodes(ctx, "")); len(left) != 1 || left[0].Heartbeat != noon.Add(time.Minute) {
		t.Errorf("left are %+v, want n1 with its sign of life", left)
	}
}

// testImages: a task is given to nodes with its image only, and a job that moves to another
// pool takes none along; it still names those that its tasks ran in.
func testImages(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	for i, image := range []string{"b@2", "a@1", ""} {
		j := job(fmt.Sprint("j", i))
		if err := Insert(ctx, l, j); err != nil {
			t.Fatal(err)
		}
		j.Image = image
		var tasks []ledger.PlannedTask
		for k := range 2 {
			tasks = append(tasks, ledger.PlannedTask{Task: fleetscore.Task{ID: fleetscore.TaskID(fmt.Sprintf("%s.%03d", j.ID, k)), Job: j.ID, Index: k, State: fleetscore.TaskQueued, Image: image}})
		}
		if err := l.PlanJob(ctx, j, tasks); err != nil {
			t.Fatal(err)
		}
	}
	want := []ledger.QueuedImage{{Image: "b@2", Tasks: 2}, {Image: "a@1", Tasks: 2}, {Tasks: 2}}
	if d := cmp.Diff(want, must[[]ledger.QueuedImage](t)(l.QueuedImages(ctx, "cpu"))); d != "" {
		t.Errorf("the images (-want +got):\n%s", d)
	}
	leases := func(id, image string, max int) (tasks string) {
		t.Helper()
		n := must[fleetscore.Node](t)(l.UpdateNode(ctx, node(t, l, id), func(n *fleetscore.Node) error { n.Image = image; return nil }))
		if n.Image != image || must[fleetscore.Node](t)(l.Node(ctx, n.ID)).Image != image {
			t.Errorf("the image of node %s isn't kept: %+v", id, n)
		}
		for _, ls := range must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n.ID, max, noon, time.Minute)) {
			tasks += string(ls.Task.ID) + " of " + ls.Job.Image + ", "
		}
		return tasks
	}
	for _, c := range []struct{ node, image, want string }{{"a", "a@1", "j1.000 of a@1, "}, {"c", "c@3", "j2.000 of , "}} {
		if got := leases(c.node, c.image, 1); got != c.want {
			t.Errorf("node %s with image %q gets %q, want %q", c.node, c.image, got, c.want)
		}
	}
	if err := l.UpdateJobs(ctx, "p", []fleetscore.JobState{fleetscore.JobQueued}, func(j *fleetscore.Job) { j.Config.Pool = "gpu" }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]ledger.QueuedImage{{Tasks: 2}}, must[[]ledger.QueuedImage](t)(l.QueuedImages(ctx, "gpu"))); d != "" {
		t.Errorf("the images in the other pool (-want +got):\n%s", d)
	}
	if j := must[fleetscore.Job](t)(l.Job(ctx, "j0")); j.Image != "" || len(j.Images()) != 0 {
		t.Errorf("the moved job, of which no task ran, has the images %s and %s", j.Image, j.Images())
	}
	if err := l.UpdateJobs(ctx, "p", []fleetscore.JobState{fleetscore.JobRunning}, func(j *fleetscore.Job) { j.Config.Pool = "gpu" }); err != nil {
		t.Fatal(err)
	}
	if j := must[fleetscore.Job](t)(l.Job(ctx, "j1")); j.Image != "" || cmp.Diff([]string{"a@1"}, j.Images()) != "" {
		t.Errorf("the moved job, of which a task ran, has the images %q and %q", j.Image, j.Images())
	}
	for _, task := range must[[]fleetscore.Task](t)(l.Tasks(ctx, "j1")) {
		if want := map[fleetscore.TaskState]string{fleetscore.TaskLeased: "a@1"}[task.State]; task.Image != want {
			t.Errorf("task %s of the moved job, which is %s, has the image %q, want %q", task.ID, task.State, task.Image, want)
		}
	}
}
