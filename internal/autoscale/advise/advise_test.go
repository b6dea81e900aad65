package advise

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
)

var start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// past is a job an hour; each has the same tasks.
func past(jobs int, runs ...autoscale.Runs) (out []autoscale.Past) {
	for i := range jobs {
		out = append(out, autoscale.Past{Created: start.Add(time.Duration(i) * time.Hour), Runs: runs})
	}
	return out
}

const gibibyte = 1 << 30

var (
	small = Machine{"small", 2, 4 * gibibyte, 0.10}
	big   = Machine{"big", 16, 64 * gibibyte, 0.80}
)

// TestByHand: four tasks of a minute and four of half a minute, with nodes that start
// within a minute; what bounds each candidate was found by hand.
func TestByHand(t *testing.T) {
	t.Parallel()
	work := Work{Jobs: past(3, autoscale.Runs{Tasks: 4, Seconds: 60}, autoscale.Runs{Tasks: 4, Seconds: 30}), Load: autoscale.Busy{CPUs: 1, MemoryBytes: gibibyte},
		Start: time.Minute, Measured: true, Within: 5 * time.Minute}
	month := func(v float64) *float64 { return &v }
	// Two slots are busy for 180 s, sixteen for 60 s; a job runs 730 times a month.
	for _, tt := range []struct {
		name     string
		change   func(*Work)
		machines []Machine
		want     []Candidate
		best     string
		says     string
	}{
		{"small is cheaper", func(*Work) {}, []Machine{big, small}, []Candidate{
			{Machine: big, Slots: 16, Possible: true, Nodes: 1, WallSeconds: 120, NodeHours: 120.0 / 3600, CostPerJob: 0.8 * 120 / 3600, CostPerMonth: month(730 * 0.8 * 120 / 3600), Bound: ByTask},
			{Machine: small, Slots: 2, Possible: true, Nodes: 1, WallSeconds: 240, NodeHours: 240.0 / 3600, CostPerJob: 0.1 * 240 / 3600, CostPerMonth: month(730 * 0.1 * 240 / 3600), Bound: ByProcessors},
		}, "small", "Take 1 × small: the longest of 3 jobs (the largest has 360.0 CPU-seconds in 8 tasks) then takes 4m0s of the allowed 5m0s, of which 1m0s is the start of the nodes, and a job costs 0.00667 on average; 1 × big would cost 0.0267."},
		{"idle nodes are paid for", func(w *Work) { w.IdleAfter = time.Hour }, []Machine{small}, []Candidate{
			{Machine: small, Slots: 2, Possible: true, Nodes: 1, WallSeconds: 240, NodeHours: 3840.0 / 3600, CostPerJob: 0.1 * 3840 / 3600, CostPerMonth: month(730 * 0.1 * 3840 / 3600), Bound: ByProcessors},
		}, "small", "a job costs 0.107"},
		{"as fast as can be", func(w *Work) { w.Within = 2 * time.Minute }, []Machine{small}, []Candidate{
			{Machine: small, Slots: 2, Possible: true, Nodes: 3, WallSeconds: 120, NodeHours: 360.0 / 3600, CostPerJob: 0.1 * 360 / 3600, CostPerMonth: month(730 * 0.1 * 360 / 3600), Bound: ByTask},
		}, "small", "Take 3 × small"},
		{"faster than a task", func(w *Work) { w.Within = 119 * time.Second }, []Machine{small}, []Candidate{{Machine: small, Slots: 2, Bound: ByTask, Why: "the longest task takes 1m0s and the start of a node 1m0s"}},
			"", "No candidate does every job within 1m59s (small: the longest task takes 1m0s and the start of a node 1m0s)."},
		{"slow to start", func(w *Work) { w.Start, w.Within = 10*time.Minute, 9*time.Minute }, []Machine{big}, []Candidate{{Machine: big, Slots: 16, Bound: ByStart, Why: "the longest task takes 1m0s and the start of a node 10m0s"}}, "", "No candidate"},
		{"mostly starting", func(w *Work) { w.Start, w.Within = 10*time.Minute, time.Hour }, []Machine{big}, []Candidate{
			{Machine: big, Slots: 16, Possible: true, Nodes: 1, WallSeconds: 660, NodeHours: 660.0 / 3600, CostPerJob: 0.8 * 660 / 3600, CostPerMonth: month(730 * 0.8 * 660 / 3600), Bound: ByStart},
		}, "big", "of which 10m0s is the start"},
		{"memory", func(*Work) {}, []Machine{{"thin", 8, gibibyte / 2, 0.1}, {"narrow", 8, 2 * gibibyte, 0.1}}, []Candidate{
			{Machine: Machine{"thin", 8, gibibyte / 2, 0.1}, Bound: ByMemory, Why: "a task needs 1.00 GiB of memory, and a machine has 0.50 GiB"},
			{Machine: Machine{"narrow", 8, 2 * gibibyte, 0.1}, Slots: 2, Possible: true, Nodes: 1, WallSeconds: 240, NodeHours: 240.0 / 3600, CostPerJob: 0.1 * 240 / 3600, CostPerMonth: month(730 * 0.1 * 240 / 3600), Bound: ByMemory},
		}, "narrow", "; not possible is thin: a task needs 1.00 GiB"},
		{"how often isn't known", func(w *Work) { w.Jobs = w.Jobs[:1] }, []Machine{small}, []Candidate{
			{Machine: small, Slots: 2, Possible: true, Nodes: 1, WallSeconds: 240, NodeHours: 240.0 / 3600, CostPerJob: 0.1 * 240 / 3600, Bound: ByProcessors},
		}, "small", ""},
		{"jobs of a few minutes say nothing about a month", func(w *Work) {
			w.Jobs = slices.Clone(w.Jobs)
			for i := range w.Jobs {
				w.Jobs[i].Created = w.Jobs[0].Created.Add(time.Duration(i) * time.Minute)
			}
		}, []Machine{small}, []Candidate{
			{Machine: small, Slots: 2, Possible: true, Nodes: 1, WallSeconds: 240, NodeHours: 240.0 / 3600, CostPerJob: 0.1 * 240 / 3600, Bound: ByProcessors},
		}, "small", ""},
		{"by the schedule", func(w *Work) { w.Every = 2 * time.Hour }, []Machine{small}, []Candidate{
			{Machine: small, Slots: 2, Possible: true, Nodes: 1, WallSeconds: 240, NodeHours: 240.0 / 3600, CostPerJob: 0.1 * 240 / 3600, CostPerMonth: month(365 * 0.1 * 240 / 3600), Bound: ByProcessors},
		}, "small", ""},
	} {
		w := work
		tt.change(&w)
		a, err := Advise(w, tt.machines)
		if d := cmp.Diff(tt.want, a.Candidates, cmpopts.EquateApprox(1e-9, 0)); d != "" || err != nil || a.Best != tt.best || !strings.Contains(a.Recommendation, tt.says) {
			t.Errorf("%s: %v, best %q, %s (-want +got):\n%s", tt.name, err, a.Best, a.Recommendation, d)
		}
	}
}

// TestUnmeasured: what wasn't measured is said, and what can't be answered is refused.
func TestUnmeasured(t *testing.T) {
	t.Parallel()
	w := Work{Jobs: past(1, autoscale.Runs{Tasks: 1, Seconds: 1}), Start: time.Minute, Within: time.Hour}
	a, err := Advise(w, []Machine{small})
	if text := strings.Join(a.Unmeasured, "\n"); err != nil || len(a.Unmeasured) != 4 || !strings.Contains(text, "takes to start wasn't measured") || !strings.Contains(text, "1m0s is assumed") ||
		!strings.Contains(text, "how many processors") || !strings.Contains(text, "memory isn't looked at") || a.CPUsPerTask != 1 || a.MemoryPerTask != 0 {
		t.Errorf("%v, %+v", err, a)
	}
	w.Measured, w.Load = true, autoscale.Busy{CPUs: 0.01, MemoryBytes: 1}
	if a, err = Advise(w, []Machine{small}); err != nil || len(a.Unmeasured) != 1 || a.CPUsPerTask != leastCPUs || a.Candidates[0].Slots != 8 {
		t.Errorf("%v, %+v", err, a)
	}
	for want, c := range map[string]struct {
		w        Work
		machines []Machine
		kind     fleetscore.Kind
	}{
		"no task has run":     {Work{Jobs: past(2), Within: time.Hour}, []Machine{small}, fleetscore.NotFound},
		"longer than nothing": {Work{Jobs: w.Jobs}, []Machine{small}, fleetscore.Invalid},
		"no candidate":        {w, nil, fleetscore.Invalid},
		"each more than 0":    {w, []Machine{{"free", 1, 1, 0}}, fleetscore.Invalid},
	} {
		if _, err := Advise(c.w, c.machines); !c.kind.Is(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// aims are how jobs are cut in these tests.
var aims = Cut{Task: 3 * time.Second, Shortest: 300 * time.Millisecond, Most: 256}

// TestByModels: a job whose models are known to cost 4 s to load and 20 s to score is cut for
// the slots of each candidate; a job with twice the rows scores twice as long. What follows was
// found by hand. The answer says what was measured and when.
func TestByModels(t *testing.T) {
	t.Parallel()
	rest := 8.0
	same, twice := int64(1000), int64(2000)
	models := autoscale.Models{Pipeline: "p", Job: "p-1", Measured: start, Sensors: 50, Rows: 1000, LoadSeconds: 4, ScoreSeconds: 20, LongestSeconds: 1, RestSeconds: &rest}
	work := Work{Models: []autoscale.Models{models}, Cut: aims, Now: start.Add(26 * time.Hour), Load: autoscale.Busy{CPUs: 1, Samples: 7}, Start: 4 * time.Second, Measured: true, Within: time.Minute, Every: time.Hour}
	// One task of 100 s is what the only slot did then; 8 tasks of 4 s is how the job is cut for 2 slots.
	job := func(rows *int64) []autoscale.Past {
		return []autoscale.Past{{Pipeline: "p", Created: start, Rows: rows, Runs: []autoscale.Runs{{Tasks: 1, Seconds: 100}}}}
	}
	for _, tt := range []struct {
		name     string
		change   func(*Work)
		machine  Machine
		nodes    int
		wall     float64
		bound    string
		measured []string
		assumed  string
	}{
		{"8 tasks of 4 s on 2 slots", func(*Work) {}, small, 1, 4 + 4*4, ByProcessors,
			[]string{"the models of p: 4s to load and 20s to score 50 sensors and 1000 rows, measured 26h0m0s ago in job p-1; its tasks took 8s for the rest, such as to read rows and to write results; 1 job of it rest on this",
				"the load of the nodes in 7 samples within the last 48 hours in which tasks ran", "how long a node takes to start"}, "as fast as those of the pool"},
		{"16 tasks of 2 s on 16 slots", func(*Work) {}, big, 1, 4 + 2, ByStart, nil, ""},
		{"15 tasks of 4 s", func(w *Work) { w.Jobs = job(&twice) }, small, 1, 4 + 8*4, ByProcessors, nil, ""}, // 4 s to load, 40 s to score, 16 s for the rest
		{"more nodes, as there is little time", func(w *Work) { w.Within = 8 * time.Second }, small, 4, 4 + 4, ByTask, nil, ""},
		{"no task is shorter than its longest shard", func(w *Work) { w.Models[0].LongestSeconds = 20 }, big, 1, 4 + 20, ByTask, nil, ""},
		{"the rest isn't known", func(w *Work) { w.Models[0].RestSeconds = nil }, small, 1, 4 + 4*3, ByProcessors, nil, "besides loading and scoring isn't known"},
		{"the job is forgotten", func(w *Work) { w.Models[0].Rows, w.Within = 0, time.Hour }, small, 1, 4 + 100, ByTask, []string{"the tasks of 1 job of p as they ran, the latest 26h0m0s ago"}, "or is forgotten"},
		{"a rerun", func(w *Work) { w.Jobs, w.Within = job(nil), time.Hour }, small, 1, 4 + 100, ByTask, []string{"the tasks of 1 job of p as they ran, the latest 26h0m0s ago"}, ""},
	} {
		w := work
		w.Jobs, w.Models = job(&same), slices.Clone(work.Models)
		tt.change(&w)
		a, err := Advise(w, []Machine{tt.machine})
		if err != nil {
			t.Fatal(err)
		}
		if c := a.Candidates[0]; !c.Possible || c.Nodes != tt.nodes || math.Abs(c.WallSeconds-tt.wall) > 1e-3 || c.Bound != tt.bound {
			t.Errorf("%s: got %+v, want %d nodes, %g s, bound by %s", tt.name, c, tt.nodes, tt.wall, tt.bound)
		}
		if n := len(tt.measured); n > 0 && !cmp.Equal(tt.measured, a.Measured[:n]) {
			t.Errorf("%s: measured %q, want %q", tt.name, a.Measured, tt.measured)
		}
		if !strings.Contains(strings.Join(a.Unmeasured, "\n"), tt.assumed) {
			t.Errorf("%s: assumed %q, want %q", tt.name, a.Unmeasured, tt.assumed)
		}
	}
}

// TestMore: whatever the tasks, more nodes and more slots never make a job longer, no job is
// shorter than its longest task or its work divided by the slots, and the node-hours hold
// the work. The nodes of an answer do every job in time, and one node less doesn't.
func TestMore(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := func(least, most int) int { return rapid.IntRange(least, most).Draw(rt, "n") }
		var runs []autoscale.Runs
		for range n(1, 4) {
			runs = append(runs, autoscale.Runs{Tasks: n(1, 9), Seconds: float64(n(1, 100))})
		}
		w := Work{Jobs: past(n(1, 3), runs...), Load: autoscale.Busy{CPUs: float64(n(1, 4)) / 2}, Start: time.Duration(n(0, 60)) * time.Second, Within: time.Duration(n(1, 900)) * time.Second}
		if rapid.Bool().Draw(rt, "measured") {
			w.Cut = aims
			w.Models = []autoscale.Models{{Rows: 10, LoadSeconds: float64(n(1, 300)) / 10, ScoreSeconds: float64(n(0, 900))}}
			w.Models[0].LongestSeconds = float64(n(0, 100)) / 100 * (w.Models[0].LoadSeconds + w.Models[0].ScoreSeconds)
			rows := int64(n(1, 30))
			for i := range w.Jobs {
				w.Jobs[i].Rows = &rows
			}
		}
		j := jobsOf(w)[0]
		nodes, slots := n(1, 8), n(1, 5)
		took, hours := j.run(nodes, slots)
		least := max(j.longest(nodes*slots), j.sum()/time.Duration(nodes*slots)) - time.Microsecond // cut tasks are rounded down
		if took < least || hours*3600*float64(slots) < j.sum().Seconds()-1e-6 || took > j.sum() {
			rt.Errorf("%v on %d × %d slots takes %s and %g node-hours", j, nodes, slots, took, hours)
		}
		if more, _ := j.run(nodes+1, slots); more > took {
			rt.Errorf("%v on %d × %d slots takes %s, on a node more %s", j, nodes, slots, took, more)
		}
		if more, _ := j.run(nodes, slots+1); more > took {
			rt.Errorf("%v on %d × %d slots takes %s, on slots more %s", j, nodes, slots, took, more)
		}
		a, err := Advise(w, []Machine{small, big})
		if err != nil {
			rt.Fatal(err)
		}
		for _, c := range a.Candidates {
			within := func(nodes int) bool { took, _ := j.run(nodes, c.Slots); return w.Start+took <= w.Within }
			if c.Possible != within(j.most()) || c.Possible && (!within(c.Nodes) || c.Nodes > 1 && within(c.Nodes-1)) {
				rt.Errorf("%v within %s, start %s: %+v", j, w.Within, w.Start, c)
			}
			if c.Possible && math.Abs(c.CostPerJob-c.NodeHours*c.CostPerHour) > 1e-12 {
				rt.Errorf("cost of %+v", c)
			}
			if c.Possible && (a.Best == "" || c.Name == a.Best && cheaper(a.Candidates, c)) {
				rt.Errorf("best %q of %+v", a.Best, a.Candidates)
			}
		}
	})
}

func cheaper(all []Candidate, c Candidate) bool {
	for _, o := range all {
		if o.Possible && o.CostPerJob < c.CostPerJob {
			return true
		}
	}
	return false
}
