package autoscale

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
)

// TestRecall: tasks that took equally long stand together; of a task with several tries the
// last one counts; what hasn't ended or never ran is counted apart.
func TestRecall(t *testing.T) {
	t.Parallel()
	at := func(ms int) *time.Time { x := now.Add(time.Duration(ms) * time.Millisecond); return &x }
	j := fleetscore.Job{ID: "p-1", Pipeline: "p", Due: at(-2000), Created: *at(-1000), Planned: at(0), Ended: at(9000), Rows: 7}
	tasks := []fleetscore.Task{
		{ID: "a", Attempts: 1, Started: at(1000), Ended: at(3500)},
		{ID: "b", Attempts: 1, Started: at(2000), Ended: at(4500)},
		{ID: "c", Attempts: 3, Started: at(1000), Ended: at(8000)},
		{ID: "d", Attempts: 1, Started: at(1000), Ended: at(1000)}, // faster than the clock
		{ID: "e", Attempts: 1, Started: at(1000)},
		{ID: "f", Ended: at(5000)},
	}
	tries := func(id fleetscore.TaskID) ([]fleetscore.Attempt, error) {
		if id != "c" {
			t.Errorf("the tries of task %s are asked for", id)
		}
		return []fleetscore.Attempt{{Started: *at(1000), Ended: at(2000)}, {Started: *at(3000), Ended: at(4000)}, {Started: *at(5000), Ended: at(8000)}}, nil
	}
	p, waits, planned, err := Recall(j, tasks, tries)
	want := Past{Job: "p-1", Pipeline: "p", Due: at(-2000), Created: *at(-1000), Queued: now, Ended: at(9000), Runs: []Runs{{1, 3}, {2, 2.5}, {1, 0.001}}, Left: 2, Rows: &j.Rows, Repeated: 1}
	if d := cmp.Diff(want, p); d != "" || !planned || err != nil {
		t.Errorf("planned %t, %v (-want +got):\n%s", planned, err, d)
	}
	if d := cmp.Diff(Waits{Mean: 2.25, P95: 5, Max: 5}, WaitsOf(waits)); d != "" {
		t.Errorf("waits (-want +got):\n%s", d)
	}
	if _, _, _, err := Recall(j, tasks, func(fleetscore.TaskID) ([]fleetscore.Attempt, error) { return nil, errors.New("away") }); err == nil {
		t.Error("the tries can't be read, and nobody says so")
	}
	j.Rerun = &fleetscore.Rerun{Of: "p-0"}
	if p, _, _, err := Recall(j, tasks, tries); err != nil || p.Rows != nil {
		t.Errorf("a rerun has %v rows, %v; want none, as most of them were carried over", p.Rows, err)
	}
	j.Planned = nil
	if _, _, planned, _ := Recall(j, nil, tries); planned {
		t.Error("a job without tasks is part of the history")
	}
	if d := cmp.Diff(Waits{}, WaitsOf(nil)); d != "" {
		t.Error(d)
	}
}

// TestBusy: what a task takes of its node comes from the samples of times in which tasks
// ran; what wasn't measured is left out.
func TestBusy(t *testing.T) {
	t.Parallel()
	sample := func(cpu, running, memory float64) Sample {
		return Sample{Values: map[string]float64{"$CPUPercent": cpu, "$RunningTasks": running, "$UsableNodeCount": 2, "$MemoryBytes": memory}}
	}
	nodes := []fleetscore.Node{{Load: &fleetscore.NodeLoad{CPUs: 4}}, {Load: &fleetscore.NodeLoad{CPUs: 8}}, {}}
	// 50 % of 2 × 6 processors do four tasks, 25 % of them do two.
	samples := []Sample{sample(90, 0, 500), sample(50, 4, 900), sample(25, 2, 700), {Values: map[string]float64{"$RunningTasks": 3}}}
	if d := cmp.Diff(Busy{CPUs: 1.5, MemoryBytes: 300, Samples: 2}, BusyOf(samples, nodes, 3)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(Busy{MemoryBytes: 900}, BusyOf(samples, nil, 1)); d != "" {
		t.Errorf("without nodes (-want +got):\n%s", d)
	}
	if d := cmp.Diff(Busy{}, BusyOf(nil, nodes, 1)); d != "" {
		t.Errorf("without samples (-want +got):\n%s", d)
	}
}
