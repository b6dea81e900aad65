package pool

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// steeredWorld is a pool whose size a formula decides, at a time that the test sets.
type steeredWorld struct {
	*testing.T
	p   *Pools
	l   ledger.Ledger
	now time.Time
}

func steer(t *testing.T, text string) *steeredWorld {
	t.Helper()
	p, l, _ := world(t, fleetscore.ScaleConfig{})
	w := &steeredWorld{t, p, l, time.Now().UTC().Truncate(time.Second)}
	w.restart()
	w.apply(text)
	return w
}

// restart goes on with pools that know only what the ledger has.
func (w *steeredWorld) restart() {
	p, err := New(Config{}, Deps{Ledger: w.l, Store: w.p.store, Providers: map[string]Provider{"local": newAsked()}, Health: &obs.Health{}, Now: func() time.Time { return w.now }})
	if err != nil {
		w.Fatal(err)
	}
	w.p = p
}

func (w *steeredWorld) apply(text string) {
	w.Helper()
	scale := fleetscore.ScaleConfig{Min: 1, Max: 5, Formula: text}
	if text != "" {
		scale.EvaluationInterval = fleetscore.Duration(5 * time.Minute)
	}
	cfg := fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Provider: "local", Slots: 1, Scale: scale}}}
	if _, err := w.l.PutConfig(w.Context(), w.now, text, cfg); err != nil {
		w.Fatal(err)
	}
}

// scale lets the pools look once, and counts the nodes that are alive then. New nodes
// register afterwards.
func (w *steeredWorld) scale() int {
	w.Helper()
	if _, err := w.p.scale(w.Context()); err != nil {
		w.Fatal(err)
	}
	nodes, err := w.l.Nodes(w.Context(), "cpu")
	if err != nil {
		w.Fatal(err)
	}
	for _, n := range nodes {
		if n.State != fleetscore.NodeStarting {
			continue
		}
		if _, err := w.l.UpdateNode(w.Context(), n.ID, func(n *fleetscore.Node) error {
			n.State, n.PID = fleetscore.NodeIdle, 4242
			return nil
		}); err != nil {
			w.Fatal(err)
		}
	}
	return count(nodes, fleetscore.NodeStarting) + count(nodes, fleetscore.NodeIdle) + count(nodes, fleetscore.NodeRunning)
}

func (w *steeredWorld) evaluations() []autoscale.Evaluation {
	w.Helper()
	all, err := w.l.Evaluations(w.Context(), "cpu", 100)
	if err != nil {
		w.Fatal(err)
	}
	return all
}

func (w *steeredWorld) health() string {
	var out []string
	for _, p := range w.p.health.Problems() {
		out = append(out, p.Part+": "+p.Problem)
	}
	return strings.Join(out, "\n")
}

// TestFormula: the first sample is there before the first evaluation, which comes at
// once; then samples come every 30 s and evaluations at their interval; the bounds of the
// pool hold.
func TestFormula(t *testing.T) {
	t.Parallel()
	w := steer(t, "n = $PendingTasks.Count(); $TargetDedicatedNodes = val($PendingTasks.GetSample(1), 0);")
	if err := ledgertest.Queue(t.Context(), w.l, jobOf("j1"), 3); err != nil {
		t.Fatal(err)
	}
	if got := w.scale(); got != 3 {
		t.Fatalf("%d nodes, want one for each task", got)
	}
	if e := w.evaluations(); len(e) != 1 || e[0].Variables["n"] != 1.0 || e[0].Service["$ActiveTasks"] != 3 || e[0].Nodes != 3 ||
		e[0].Result != "$TargetDedicatedNodes=3;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue;n=1" {
		t.Fatalf("evaluations %+v", e)
	}
	if err := ledgertest.Queue(t.Context(), w.l, jobOf("j2"), 9); err != nil {
		t.Fatal(err)
	}
	for range 59 { // 295 s, looked at as often as the server does
		w.now = w.now.Add(5 * time.Second)
		if got := w.scale(); got != 3 {
			t.Fatalf("%d nodes before the formula was evaluated again", got)
		}
	}
	w.now = w.now.Add(5 * time.Second)
	if got := w.scale(); got != 5 {
		t.Errorf("%d nodes, want the most that the pool may have", got)
	}
	if e := w.evaluations(); len(e) != 2 || e[0].Variables["n"] != 11.0 || e[0].Targets[formula.Dedicated] != 12 || e[0].Nodes != 5 {
		t.Errorf("evaluations %+v, want a second one with 11 samples", e)
	}
}

func jobOf(id string) fleetscore.Job {
	return fleetscore.Job{ID: fleetscore.JobID(id), Pipeline: "p", State: fleetscore.JobWaiting, Config: fleetscore.PipelineConfig{Pool: "cpu", Limits: fleetscore.LimitsConfig{Tries: 3}}}
}

// TestFormulaThatFails: the pool stays as it is, health says where and why, and a
// formula that is good again is evaluated at once.
func TestFormulaThatFails(t *testing.T) {
	t.Parallel()
	w := steer(t, "$TargetDedicatedNodes = 4;")
	if got := w.scale(); got != 4 || w.health() != "" {
		t.Fatalf("%d nodes, want 4; health %q", got, w.health())
	}
	w.apply("$TargetDedicatedNodes = 2;\n$TargetDedicatedNodes = avg($ActiveTasks.GetSample(TimeInterval_Hour));")
	if got := w.scale(); got != 4 {
		t.Errorf("%d nodes after a formula failed, want 4 as before", got)
	}
	if h := w.health(); !strings.Contains(h, "formula of pool cpu: ") || !strings.Contains(h, "Line 2, Col 51") || !strings.Contains(h, "GetSamplePercent") {
		t.Errorf("health says %q, want the place and the hint", h)
	}
	if e := w.evaluations()[0]; e.Problem == nil || e.Problem.Code != formula.TooFewSamples || e.Nodes != 4 {
		t.Errorf("the history has %+v", e)
	}
	w.apply("$TargetDedicatedNodes = 5;")
	if got := w.scale(); got != 5 || w.health() != "" {
		t.Errorf("%d nodes, want 5; health %q", got, w.health())
	}
	w.apply("$TargetDedicatedNodes = 1 / 0;")
	w.scale()
	w.apply("") // no formula
	if w.scale(); w.health() != "" {
		t.Errorf("without a formula health says %q", w.health())
	}
}

// TestFirstFormulaThatFails: a pool that had nodes before it had a formula keeps them.
func TestFirstFormulaThatFails(t *testing.T) {
	t.Parallel()
	w := steer(t, "")
	if err := ledgertest.Queue(t.Context(), w.l, jobOf("j1"), 3); err != nil {
		t.Fatal(err)
	}
	if got := w.scale(); got != 3 {
		t.Fatalf("%d nodes for three tasks", got)
	}
	w.apply("$TargetDedicatedNodes = avg($ActiveTasks.GetSample(TimeInterval_Hour));")
	if got := w.scale(); got != 3 {
		t.Errorf("%d nodes after the first evaluation failed, want the 3 there were", got)
	}
}

// TestFormulaAfterARestart: the next server goes on with the targets, samples and the
// time of the last evaluation.
func TestFormulaAfterARestart(t *testing.T) {
	t.Parallel()
	w := steer(t, "n = $PendingTasks.Count(); $TargetDedicatedNodes = $TargetDedicatedNodes + 2;")
	if got := w.scale(); got != 2 {
		t.Fatalf("%d nodes, want 2", got)
	}
	w.now = w.now.Add(time.Minute)
	w.restart()
	if got := w.scale(); got != 2 || len(w.evaluations()) != 1 {
		t.Errorf("%d nodes and %d evaluations after a restart, want 2 and 1", got, len(w.evaluations()))
	}
	w.now = w.now.Add(4 * time.Minute)
	if got := w.scale(); got != 4 {
		t.Errorf("%d nodes after the interval, want 4", got)
	}
	if e := w.evaluations(); len(e) != 2 || e[0].Variables["n"] != 3.0 {
		t.Errorf("evaluations %+v, want a second one with the sample of the former server", e)
	}
}

// TestOptions: what becomes of a task that runs on a node that the formula ends.
func TestOptions(t *testing.T) {
	t.Parallel()
	for option, want := range map[string]struct {
		task    fleetscore.TaskState
		attempt string
	}{
		formula.Requeue:        {fleetscore.TaskQueued, "lost"},
		formula.Terminate:      {fleetscore.TaskFailed, "failed"},
		formula.TaskCompletion: {fleetscore.TaskLeased, "leased"},
		formula.RetainedData:   {fleetscore.TaskLeased, "leased"},
	} {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			w := steer(t, "$TargetDedicatedNodes = 2;")
			if got := w.scale(); got != 2 {
				t.Fatalf("%d nodes, want 2", got)
			}
			nodes, err := w.l.Nodes(t.Context(), "cpu")
			if err != nil {
				t.Fatal(err)
			}
			if err := ledgertest.Queue(t.Context(), w.l, jobOf("j1"), 2); err != nil {
				t.Fatal(err)
			}
			for _, n := range nodes {
				if ls, err := w.l.LeaseTasks(t.Context(), "cpu", n.ID, 1, w.now, time.Hour); err != nil || len(ls) != 1 {
					t.Fatalf("leases %+v, %v", ls, err)
				}
			}
			w.apply(fmt.Sprintf("$TargetDedicatedNodes = 1; $NodeDeallocationOption = %s;", option))
			if got := w.scale(); got != 1 {
				t.Errorf("%d nodes take tasks, want 1", got)
			}
			tasks, err := w.l.Tasks(t.Context(), "j1")
			if err != nil {
				t.Fatal(err)
			}
			changed := 0
			for _, task := range tasks {
				attempts, err := w.l.Attempts(t.Context(), task.ID)
				if err != nil || len(attempts) != 1 {
					t.Fatalf("attempts %+v, %v", attempts, err)
				}
				if n, err := w.l.Node(t.Context(), attempts[0].Node); err != nil {
					t.Fatal(err)
				} else if n.State.Works() {
					if task.State != fleetscore.TaskLeased {
						t.Errorf("the task of the node that stays is %s", task.State)
					}
					continue
				}
				changed++
				if task.State != want.task || attempts[0].State != want.attempt {
					t.Errorf("the task of the node that ends is %s, its attempt %s; want %s, %s", task.State, attempts[0].State, want.task, want.attempt)
				}
			}
			if changed != 1 {
				t.Errorf("%d nodes end, want one", changed)
			}
		})
	}
}
