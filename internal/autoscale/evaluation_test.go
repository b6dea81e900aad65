package autoscale

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
)

func TestReach(t *testing.T) {
	t.Parallel()
	old, young := NodeView{ID: "old", State: fleetscore.NodeIdle, Started: now.Add(-time.Hour)}, NodeView{ID: "young", State: fleetscore.NodeStarting, Started: now}
	busy := NodeView{ID: "busy", State: fleetscore.NodeIdle, Running: 1, Started: now}
	gone := NodeView{ID: "gone", State: fleetscore.NodeLost}
	ids := func(names ...fleetscore.NodeID) []fleetscore.NodeID { return names }
	for _, tt := range []struct {
		name   string
		want   int
		option string
		nodes  []NodeView
		out    Decision
	}{
		{"from zero", 3, formula.Requeue, []NodeView{gone}, Decision{Want: 3, Start: 3}},
		{"as it is", 2, formula.Requeue, []NodeView{old, busy, gone}, Decision{Want: 2}},
		{"the youngest idle node ends first", 2, formula.Requeue, []NodeView{busy, old, young}, Decision{Want: 2, Drain: ids("young")}},
		{"tasks are interrupted", 0, formula.Requeue, []NodeView{old, busy}, Decision{Drain: ids("old"), Interrupt: ids("busy")}},
		{"also to end them for good", 0, formula.Terminate, []NodeView{busy}, Decision{Interrupt: ids("busy")}},
		{"tasks end first", 0, formula.TaskCompletion, []NodeView{busy}, Decision{Drain: ids("busy")}},
		{"data is kept", 0, formula.RetainedData, []NodeView{busy}, Decision{Drain: ids("busy")}},
	} {
		if d := cmp.Diff(tt.out, Reach(tt.want, 0, tt.option, State{Nodes: tt.nodes, Now: now})); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

// TestReachSettles: carrying a decision out gives exactly the number that is wanted, and
// no node with tasks ends while one without tasks stays.
func TestReachSettles(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := State{Now: now}
		states := []fleetscore.NodeState{fleetscore.NodeStarting, fleetscore.NodeIdle, fleetscore.NodeDraining, fleetscore.NodeStopped, fleetscore.NodeLost}
		running := map[fleetscore.NodeID]int{}
		for i := range rapid.IntRange(0, 8).Draw(rt, "nodes") {
			n := NodeView{ID: fleetscore.NodeID(fmt.Sprint(i)), State: rapid.SampledFrom(states).Draw(rt, "state"), Running: rapid.IntRange(0, 2).Draw(rt, "running")}
			s.Nodes = append(s.Nodes, n)
			running[n.ID] = n.Running
		}
		want := rapid.IntRange(0, 8).Draw(rt, "want")
		option := rapid.SampledFrom([]string{formula.Requeue, formula.Terminate, formula.TaskCompletion, formula.RetainedData}).Draw(rt, "option")
		d := Reach(want, 0, option, s)
		ended := map[fleetscore.NodeID]bool{}
		for _, id := range append(d.Drain, d.Interrupt...) {
			ended[id] = true
		}
		if got := s.Alive() + d.Start - len(ended); got != want || d.Start > 0 && len(ended) > 0 {
			rt.Errorf("%d nodes instead of %d: %+v", got, want, d)
		}
		for _, busy := range s.alive() {
			for _, idle := range s.alive() {
				if ended[busy.ID] && busy.Running > 0 && !ended[idle.ID] && idle.Running == 0 {
					rt.Errorf("node %s ends with tasks while %s has none: %+v", busy.ID, idle.ID, d)
				}
			}
		}
		for _, id := range d.Interrupt {
			if running[id] == 0 || option == formula.TaskCompletion || option == formula.RetainedData {
				rt.Errorf("node %s is interrupted with %d tasks by %s", id, running[id], option)
			}
		}
	})
}

func TestBounded(t *testing.T) {
	t.Parallel()
	c := fleetscore.ScaleConfig{Min: 1, Max: 5}
	for _, tt := range []struct{ dedicated, low, want int64 }{{0, 0, 1}, {2, 1, 3}, {4, 4, 5}, {1_000_000_000, 1_000_000_000, 5}} {
		if got, low := Bounded(c, map[string]int64{formula.Dedicated: tt.dedicated, formula.LowPriority: tt.low}); got != int(tt.want) || low != 0 {
			t.Errorf("targets %d and %d give %d nodes and %d of low priority, want %d", tt.dedicated, tt.low, got, low, tt.want)
		}
	}
	c.LowPriority = &fleetscore.LowPriorityConfig{Min: 1, Max: 3}
	for _, tt := range []struct{ dedicated, low, want, wantLow int64 }{{0, 0, 1, 1}, {2, 2, 2, 2}, {9, 9, 5, 3}} {
		if got, low := Bounded(c, map[string]int64{formula.Dedicated: tt.dedicated, formula.LowPriority: tt.low}); got != int(tt.want) || low != int(tt.wantLow) {
			t.Errorf("with both kinds, targets %d and %d give %d and %d nodes, want %d and %d", tt.dedicated, tt.low, got, low, tt.want, tt.wantLow)
		}
	}
}

// TestKinds: nodes of low priority come first, beyond the least number of dedicated ones;
// each kind has its bounds, and grows and shrinks by itself; nodes of low priority end when
// the pool has none any more.
func TestKinds(t *testing.T) {
	t.Parallel()
	c := fleetscore.ScaleConfig{Min: 1, Max: 4, LowPriority: &fleetscore.LowPriorityConfig{Min: 0, Max: 3}}
	for _, tt := range []struct{ nodes, dedicated, low int }{{0, 1, 0}, {1, 1, 0}, {2, 1, 1}, {4, 1, 3}, {5, 2, 3}, {99, 4, 3}} {
		if d, low := Split(c, tt.nodes); d != tt.dedicated || low != tt.low {
			t.Errorf("%d nodes are split into %d and %d, want %d and %d", tt.nodes, d, low, tt.dedicated, tt.low)
		}
	}
	node := func(id string, kind fleetscore.NodeKind) NodeView {
		return NodeView{ID: fleetscore.NodeID(id), State: fleetscore.NodeIdle, Kind: kind, IdleSince: now.Add(-time.Hour)}
	}
	s := State{Queued: 5, Now: now, Kinds: true, Nodes: []NodeView{node("d", fleetscore.Dedicated), node("l", fleetscore.LowPriority)}}
	if d := cmp.Diff(Decision{Want: 5, Start: 1, StartLow: 2}, Target(c, 1, s)); d != "" {
		t.Errorf("for work (-want +got):\n%s", d)
	}
	s.Queued = 0
	if d := cmp.Diff(Decision{Want: 1, Drain: []fleetscore.NodeID{"l"}}, Target(c, 1, s)); d != "" {
		t.Errorf("without work (-want +got):\n%s", d)
	}
	if d := cmp.Diff(Decision{Want: 3, Start: 2, Drain: []fleetscore.NodeID{"l"}}, Reach(3, 0, formula.Requeue, s)); d != "" {
		t.Errorf("by a formula (-want +got):\n%s", d)
	}
	c.LowPriority = nil
	c.IdleAfter = fleetscore.Duration(24 * time.Hour)
	if d := cmp.Diff(Decision{Want: 1, Drain: []fleetscore.NodeID{"l"}}, Target(c, 1, s)); d != "" {
		t.Errorf("without nodes of low priority (-want +got):\n%s", d)
	}
	taken := node("t", fleetscore.LowPriority)
	taken.State, taken.Preempted = fleetscore.NodeLost, true
	s.Nodes = append(s.Nodes, taken)
	for target, want := range map[int64]float64{0: 0, 1: 0, 2: 1, 9: 1} { // "l" is there
		got := Measure(1, s, map[string]int64{formula.LowPriority: target}).Values
		if got["$PreemptedNodeCount"] != want || got["$CurrentLowPriorityNodes"] != 1 || got["$CurrentDedicatedNodes"] != 1 {
			t.Errorf("with the target %d: %v", target, got)
		}
	}
}

// TestMeasure: nodes that end are still current; those beyond the dedicated target count
// as nodes of low priority. There is a sample of each variable that formulas can read.
func TestMeasure(t *testing.T) {
	t.Parallel()
	s := State{Queued: 3, Leased: 2, Succeeded: 8, Failed: 1, Now: now}
	for i, state := range []fleetscore.NodeState{fleetscore.NodeStarting, fleetscore.NodeIdle, fleetscore.NodeIdle, fleetscore.NodeDraining, fleetscore.NodeStopped, fleetscore.NodeLost} {
		s.Nodes = append(s.Nodes, NodeView{ID: fleetscore.NodeID(fmt.Sprint(i)), State: state})
	}
	got := Measure(4, s, map[string]int64{formula.Dedicated: 1, formula.LowPriority: 2})
	want := Sample{At: now, Values: map[string]float64{"$ActiveTasks": 3, "$RunningTasks": 2, "$PendingTasks": 5, "$SucceededTasks": 8, "$FailedTasks": 1, "$CurrentDedicatedNodes": 2, "$CurrentLowPriorityNodes": 2,
		"$PreemptedNodeCount": 0, "$UsableNodeCount": 2, "$SampleNodeCount": 2, "$TaskSlotsPerNode": 4}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	load := func(at time.Time, n int64) *fleetscore.NodeLoad {
		v := float64(n)
		return &fleetscore.NodeLoad{At: at, CPUPercent: &v, MemoryBytes: &n, DiskBytes: &n, DiskReadBytes: &n, DiskWriteBytes: &n, DiskReadOps: &n, DiskWriteOps: &n, NetworkInBytes: &n, NetworkOutBytes: &n}
	}
	s.Nodes[1].Load, s.Nodes[1].Before = load(now, 2), load(now.Add(-time.Second), 1)
	got = Measure(4, s, nil)
	for _, n := range formula.Metrics() {
		if _, ok := got.Values[n]; !ok {
			t.Errorf("formulas know %s, and no sample is taken of it although a node measured everything", n)
		}
	}
}

// TestMeasureLoad: CPU, memory and disk are means of the nodes that measured them lately;
// what was transferred is the sum of what was added since the sample before, also if a
// node began to count anew; what nobody has measured has no value.
func TestMeasureLoad(t *testing.T) {
	t.Parallel()
	at := func(ago time.Duration, cpu float64, memory, read int64) *fleetscore.NodeLoad {
		return &fleetscore.NodeLoad{At: now.Add(-ago), CPUPercent: &cpu, MemoryBytes: &memory, DiskReadBytes: &read}
	}
	s := State{Now: now, Nodes: []NodeView{
		{ID: "a", State: fleetscore.NodeRunning, Load: at(0, 80, 100, 1500), Before: at(30*time.Second, 1, 1, 1000)},
		{ID: "b", State: fleetscore.NodeIdle, Load: at(5*time.Second, 20, 300, 70), Before: at(35*time.Second, 1, 1, 9000)}, // it started anew
		{ID: "silent", State: fleetscore.NodeIdle, Load: at(2*time.Minute, 99, 99, 99)},
		{ID: "gone", State: fleetscore.NodeLost, Load: at(0, 99, 99, 99)},
		{ID: "new", State: fleetscore.NodePreparing, Load: &fleetscore.NodeLoad{At: now, Missing: "all"}},
	}}
	got := Measure(1, s, nil).Values
	for name, want := range map[string]float64{"$CPUPercent": 50, "$MemoryBytes": 200, "$DiskReadBytes": 500, "$WallClockSeconds": 60} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, %v; want %v", name, v, ok, want)
		}
	}
	for _, name := range []string{"$DiskBytes", "$NetworkInBytes", "$DiskWriteOps"} {
		if v, ok := got[name]; ok {
			t.Errorf("%s is %v although no node measured it", name, v)
		}
	}
	text := "$TargetDedicatedNodes = avg($CPUPercent.GetSample(TimeInterval_Minute, 0)) > 40 ? 3 : 1;"
	samples := []Sample{Measure(1, s, nil)}
	if r := formula.Evaluate(text, formula.State{Now: now, Samples: Series(samples)}); r.Err != nil || r.Targets[formula.Dedicated] != 3 {
		t.Errorf("a formula with $CPUPercent gives %v, %v; want 3 nodes", r.Targets, r.Err)
	}
}

// TestEvaluated: the history has every variable and the service's text; what is long is
// shortened; a failure has its place and hint and the targets of before.
func TestEvaluated(t *testing.T) {
	t.Parallel()
	samples := []Sample{}
	for i := range 2000 {
		samples = append(samples, Sample{At: now.Add(time.Duration(i-2000) * formula.SamplePeriod), Values: map[string]float64{"$PendingTasks": float64(i)}})
	}
	evaluate := func(text string) Evaluation {
		r := formula.Evaluate(text, formula.State{Now: now, Current: map[string]float64{formula.Dedicated: 2}, Samples: Series(samples)})
		return Evaluated(fleetscore.ScaleConfig{Max: 3, Formula: text}, now, samples[len(samples)-1], r)
	}
	e := evaluate("n = 1.5; v = vec(1, 2); long = $PendingTasks.GetSample(2000); $TargetDedicatedNodes = val(long, 1999);")
	if e.Nodes != 3 || e.Targets[formula.Dedicated] != 1999 || e.Variables["n"] != 1.5 || !cmp.Equal(e.Variables["v"], []any{1.0, 2.0}) || e.Problem != nil ||
		!strings.HasPrefix(e.Result, "$TargetDedicatedNodes=1999;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue;long=[0,1,") || len(e.Result) > maxResult+3 {
		t.Errorf("evaluation %+v", e)
	}
	if long, ok := e.Variables["long"].(string); !ok || len(long) > maxVariable+3 || !strings.HasSuffix(long, "…") {
		t.Errorf("a long vector is kept as %.80v", e.Variables["long"])
	}
	if len(e.Samples) != 1 || e.Samples[0].Got != 2000 {
		t.Errorf("samples used: %+v", e.Samples)
	}
	e = evaluate("$TargetDedicatedNodes = 1;\n$TargetDedicatedNodes = avg($ActiveTasks.GetSample(TimeInterval_Hour));")
	if p := e.Problem; p == nil || p.Line != 2 || p.Column != 51 || p.Hint == "" || e.Targets[formula.Dedicated] != 2 || e.Nodes != 2 {
		t.Errorf("a failed evaluation is %+v with %+v", e, e.Problem)
	}
}
