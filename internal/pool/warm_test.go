package pool

import (
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
)

// TestWarmUp: the nodes that the last job asked for are started as long before the next
// due time as nodes were seen to take, stay while the job waits for its data, and aren't
// started for a paused schedule, nor where nobody asked for it.
func TestWarmUp(t *testing.T) {
	t.Parallel()
	due := time.Now().UTC().Truncate(time.Hour).Add(5 * time.Hour)
	for _, tt := range []struct {
		name          string
		off, measured bool
		paused, waits bool
		formula       string
		at            time.Duration // after the due time
		want          int
	}{
		{name: "too early", measured: true, at: -41 * time.Second, want: 0},
		{name: "in time", measured: true, at: -40 * time.Second, want: 2},
		{name: "also with a formula", measured: true, formula: "$TargetDedicatedNodes = 0;", at: -40 * time.Second, want: 2},
		{name: "the job waits for its data", measured: true, waits: true, at: time.Minute, want: 2},
		{name: "the job began", measured: true, at: time.Minute, want: 0},
		{name: "paused", measured: true, paused: true, at: -40 * time.Second, want: 0},
		{name: "no node was measured", at: -40 * time.Second, want: 0},
		{name: "nobody asked for it", measured: true, off: true, at: -40 * time.Second, want: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := steer(t, "")
			w.now = due.Add(tt.at)
			pipeline := fleetscore.PipelineConfig{Pool: "cpu", Schedule: fleetscore.ScheduleConfig{Cron: "0 * * * *"}}
			scale := fleetscore.ScaleConfig{Max: 5, WarmUp: !tt.off, Formula: tt.formula, EvaluationInterval: fleetscore.Duration(time.Hour), IdleAfter: fleetscore.Duration(time.Minute)}
			cfg := fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Provider: "local", Slots: 2, Scale: scale}},
				Pipelines: map[string]fleetscore.PipelineConfig{"p": pipeline}}
			if _, err := w.l.PutConfig(t.Context(), w.now, "warm", cfg); err != nil {
				t.Fatal(err)
			}
			decided := due.Add(-time.Hour)
			if tt.at > 0 {
				decided = due
			}
			last := fleetscore.Job{ID: "last", Pipeline: "p", State: fleetscore.JobSucceeded, Tasks: 3, Ended: &decided, Config: pipeline}
			if err := ledgertest.Insert(t.Context(), w.l, last); err != nil {
				t.Fatal(err)
			}
			if _, err := w.l.DecideSchedule(t.Context(), "p", func(v ledger.ScheduleView) (d ledger.ScheduleDecision, err error) {
				d.State = v.State
				d.State.Created, d.State.LastDue = decided.Add(-time.Hour), decided
				if tt.paused {
					d.State.Paused = decided
				}
				if tt.waits {
					d.Job = &fleetscore.Job{ID: "next", Pipeline: "p", State: fleetscore.JobWaiting, Due: &due, Config: pipeline}
				}
				return d, nil
			}); err != nil {
				t.Fatal(err)
			}
			if tt.measured {
				if _, err := w.l.UpdateNode(t.Context(), "old", func(n *fleetscore.Node) error {
					*n = fleetscore.Node{ID: "old", Pool: "cpu", State: fleetscore.NodeStopped, PID: 1, Started: decided, Ready: decided.Add(40 * time.Second)}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			if got := w.scale(); got != tt.want {
				t.Errorf("%d nodes, want %d", got, tt.want)
			}
		})
	}
}
