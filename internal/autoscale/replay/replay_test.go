package replay

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
)

var start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

func play(t *testing.T, src string, cfg Config, work ...Arrival) Outcome {
	t.Helper()
	f, problems := formula.Parse(src)
	if problems != nil {
		t.Fatal(problems)
	}
	o, err := Run(f, cfg, work)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestByHand: a small replay, computed by hand. Two nodes with one slot are ready after
// a minute; of four tasks of 100 s two wait 60 s and two 160 s; the nodes stay.
func TestByHand(t *testing.T) {
	t.Parallel()
	got := play(t, "$TargetDedicatedNodes = 2", Config{Start: time.Minute, Tail: 140 * time.Second}, Arrival{start, 4, 100 * time.Second})
	want := Outcome{From: start, To: at(400), Evaluations: 1, MostNodes: 2, NodeHours: 800.0 / 3600, Busy: 50, Tasks: 4, Done: 4, Waits: autoscale.Waits{Mean: 110, P95: 160, Max: 160}, Last: at(260),
		Points: []Point{{start, 2, 4, 0}, {at(60), 2, 2, 2}, {at(160), 2, 0, 2}, {at(260), 2, 0, 0}}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestIdleTail: the pattern that halves the nodes keeps 20 nodes alive for 75 minutes
// after the last work, at the usual interval.
func TestIdleTail(t *testing.T) {
	t.Parallel()
	const half = `$tasks = max(0, $PendingTasks.GetSample(1)); $target = $tasks > 0 ? $tasks : $TargetDedicatedNodes / 2; $TargetDedicatedNodes = min(20, $target); $NodeDeallocationOption = taskcompletion`
	o := play(t, half, Config{}, Arrival{start, 20, 14 * time.Minute})
	var sizes []string
	for _, p := range o.Points {
		if s := fmt.Sprint(p.Nodes, " ", p.At.Sub(start)); len(sizes) == 0 || strings.Fields(sizes[len(sizes)-1])[0] != fmt.Sprint(p.Nodes) {
			sizes = append(sizes, s)
		}
	}
	if diff := cmp.Diff([]string{"20 0s", "10 15m0s", "5 30m0s", "2 45m0s", "1 1h0m0s", "0 1h15m0s"}, sizes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestOptions: what becomes of tasks when two nodes become none after 15 minutes.
func TestOptions(t *testing.T) {
	t.Parallel()
	for option, want := range map[string]string{
		"requeue":        "done 0 requeued 4 terminated 0 queued 4 nodes 0",
		"terminate":      "done 0 requeued 0 terminated 4 queued 0 nodes 0",
		"taskcompletion": "done 4 requeued 0 terminated 0 queued 0 nodes 0",
		"retaineddata":   "done 4 requeued 0 terminated 0 queued 0 nodes 0",
	} {
		for _, target := range []string{formula.Dedicated, formula.LowPriority} {
			src := fmt.Sprintf("%s = time() < time(\"2026-11-23T10:10:00Z\") ? 2 : 0; $NodeDeallocationOption = %s", target, option)
			o := play(t, src, Config{Slots: 2}, Arrival{start, 4, 20 * time.Minute})
			last := o.Points[len(o.Points)-1]
			if got := fmt.Sprintf("done %d requeued %d terminated %d queued %d nodes %d", o.Done, o.Requeued, o.Terminated, last.Queued, last.Nodes); got != want {
				t.Errorf("%s with %s: got %s, want %s", target, option, got, want)
			}
		}
	}
	// A node without tasks goes first.
	o := play(t, `$TargetDedicatedNodes = time() < time("2026-11-23T10:10:00Z") ? 3 : 1`, Config{Slots: 2}, Arrival{start, 2, 20 * time.Minute})
	if o.Requeued != 0 || o.Done != 2 {
		t.Errorf("a node with tasks was taken: %+v", o)
	}
	// Of nodes with equally many tasks the youngest goes: of the two, the one that came
	// after a minute, whose task has 19 minutes behind it instead of 20.
	o = play(t, `$TargetDedicatedNodes = time() < time("2026-11-23T10:01:00Z") ? 1 : time() < time("2026-11-23T10:20:00Z") ? 2 : 1`, Config{Interval: time.Minute}, Arrival{start, 2, 30 * time.Minute})
	if o.Requeued != 1 || !o.Last.Equal(start.Add(time.Hour)) {
		t.Errorf("not the youngest node was taken: %+v", o)
	}
}

// TestBounds: min and max bound what a formula asks for, and a failing one keeps the pool.
func TestBounds(t *testing.T) {
	t.Parallel()
	work := Arrival{start, 1, time.Minute}
	if o := play(t, "$TargetDedicatedNodes = 50", Config{Max: 3}, work); o.MostNodes != 3 {
		t.Errorf("got %d nodes, want 3", o.MostNodes)
	}
	if o := play(t, "$TargetDedicatedNodes = 0", Config{Min: 2}, work); o.MostNodes != 2 || o.Done != 1 {
		t.Errorf("got %+v, want 2 nodes", o)
	}
	o := play(t, `$TargetDedicatedNodes = time() < time("2026-11-23T10:10:00Z") ? 4 : avg($PendingTasks.GetSample(TimeInterval_Day))`, Config{}, work)
	if last := o.Points[len(o.Points)-1]; o.Failed != o.Evaluations-1 || last.Nodes != 4 || !strings.Contains(o.FirstError, "wanted 70%, received 1%") {
		t.Errorf("got %+v", o)
	}
	f, _ := formula.Parse("$TargetDedicatedNodes = 1")
	for want, c := range map[string]struct {
		cfg  Config
		work []Arrival
	}{
		"min 2, max 1":            {Config{Min: 2, Max: 1}, []Arrival{work}},
		"no tasks":                {Config{}, nil},
		"at least one task":       {Config{}, []Arrival{{start, 0, 1}}},
		"more than 1000000 tasks": {Config{}, []Arrival{{start, MaxTasks, 1}, work}},
		"more than 100 days":      {Config{}, []Arrival{work, {start.Add(MaxSpan + 1), 1, 1}}},
		"a second apart":          {Config{Interval: 1}, []Arrival{work}},
		"more than 50000 times":   {Config{Interval: time.Second}, []Arrival{work, {start.Add(20 * 24 * time.Hour), 1, 1}}},
	} {
		if _, err := Run(f, c.cfg, c.work); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestAccounts: whatever the workload and the formula, every task is accounted for, the
// node-hours are those of the points, bounds hold, and a repetition gives the same.
func TestAccounts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := func(most int) int { return rapid.IntRange(0, most).Draw(rt, "n") }
		var work []Arrival
		for range 1 + n(5) {
			work = append(work, Arrival{at(n(7200)), 1 + n(20), time.Duration(1+n(2000)) * time.Second})
		}
		cfg := Config{Slots: 1 + n(3), Start: time.Duration(n(300)) * time.Second, Interval: time.Duration(30+n(600)) * time.Second, Min: n(2), Tail: time.Hour}
		cfg.Max = 1 + cfg.Min + n(10)
		src := []string{
			"$TargetDedicatedNodes = max(0, $PendingTasks.GetSample(1)) / $TaskSlotsPerNode",
			"$TargetDedicatedNodes = max(0, $ActiveTasks.GetSample(1)); $TargetLowPriorityNodes = time().minute / 10",
			"$TargetDedicatedNodes = avg($PendingTasks.GetSample(5 * TimeInterval_Minute))",
		}[n(2)] + ";$NodeDeallocationOption = " + []string{"requeue", "terminate", "taskcompletion"}[n(2)]
		f, _ := formula.Parse(src)
		o, err := Run(f, cfg, work)
		if err != nil {
			rt.Fatal(err)
		}
		again, _ := Run(f, cfg, work)
		if diff := cmp.Diff(o, again); diff != "" {
			rt.Errorf("a repetition differs:\n%s", diff)
		}
		hours, tasks := 0.0, 0.0
		for i, p := range o.Points {
			end := o.To
			if i+1 < len(o.Points) {
				end = o.Points[i+1].At
			}
			hours += end.Sub(p.At).Hours() * float64(p.Nodes)
			tasks += end.Sub(p.At).Hours() * float64(p.Running)
			if p.Running > p.Nodes*cfg.Slots {
				rt.Errorf("%d tasks run on %d nodes", p.Running, p.Nodes)
			}
		}
		if math.Abs(hours-o.NodeHours) > 1e-6 || hours > 0 && math.Abs(100*tasks/hours/float64(cfg.Slots)-o.Busy) > 1e-6 {
			rt.Errorf("%g node-hours and %g task-hours in the points, %g and %g %% in the account", hours, tasks, o.NodeHours, o.Busy)
		}
		last := o.Points[len(o.Points)-1]
		if o.Done+o.Terminated+last.Queued+last.Running != o.Tasks {
			rt.Errorf("tasks are lost: %+v", o)
		}
		if o.Failed == 0 && cfg.Max > 0 && !strings.Contains(src, "taskcompletion") && o.MostNodes > 2*cfg.Max {
			rt.Errorf("%d nodes", o.MostNodes)
		}
	})
}

func TestSeries(t *testing.T) {
	t.Parallel()
	o := Outcome{From: start, To: at(40), Points: []Point{{start, 1, 9, 0}, {at(10), 2, 0, 0}, {at(15), 5, 0, 1}, {at(16), 2, 3, 0}, {at(39), 0, 0, 0}}}
	want := []Point{{start, 1, 9, 0}, {at(10), 5, 3, 1}, {at(20), 2, 3, 0}, {at(30), 2, 3, 0}}
	if diff := cmp.Diff(want, o.Series(4)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWorkload: whatever jobs asked of their pool is the same after it was written and read.
func TestWorkload(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := func(most int) int { return rapid.IntRange(0, most).Draw(rt, "n") }
		var jobs []autoscale.Past
		want := 0
		for range 1 + n(3) {
			j := autoscale.Past{Queued: at(n(9)).Add(time.Duration(n(999_999_999)))}
			for range 1 + n(3) {
				j.Runs = append(j.Runs, autoscale.Runs{Tasks: 1 + n(9), Seconds: (time.Duration(1+n(1<<40)) * time.Millisecond).Seconds()})
				j.Runs[len(j.Runs)-1].Seconds = min(j.Runs[len(j.Runs)-1].Seconds, MaxSpan.Seconds())
				want++
			}
			jobs = append(jobs, j)
		}
		work := Work(jobs)
		var text strings.Builder
		if err := Write(&text, work); err != nil {
			rt.Fatal(err)
		}
		got, err := Read("tasks.csv", []byte(text.String()))
		if d := cmp.Diff(work, got); d != "" || err != nil || len(got) != want {
			rt.Errorf("%d entries, %v (-want +got):\n%s\n%s", len(got), err, d, text.String())
		}
	})
}
