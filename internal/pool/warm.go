package pool

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/schedule"
)

// measure notes how long the nodes of a pool take to start. Nodes that have gone are
// forgotten by the ledger; what they took is remembered as long as the server runs.
func (p *Pools) measure(pool string, nodes []fleetscore.Node) {
	if takes, known := autoscale.StartTime(nodes); known {
		p.takes[pool] = takes
	}
}

// warm raises the least number of nodes of a pool whose pipelines are due soon. It returns
// when that number may change; zero if it doesn't.
func (p *Pools) warm(ctx context.Context, pool string, c *fleetscore.PoolConfig, now time.Time) (wake time.Time, err error) {
	takes, known := p.takes[pool]
	if !c.Scale.WarmUp || !known {
		return wake, nil
	}
	cfg, _, _, err := p.ledger.Config(ctx)
	if err != nil {
		return wake, err
	}
	var starts []autoscale.Start
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		if pipeline := cfg.Pipelines[name]; pipeline.Pool == pool && pipeline.Schedule.IsSet() {
			s, err := p.expected(ctx, name, pipeline, now)
			if err != nil {
				return wake, err
			}
			starts = append(starts, s...)
		}
	}
	nodes, wake := autoscale.Warm(c.Slots, takes, starts, now)
	if low := c.Scale.LowPriority; low != nil { // the cheaper ones first, as for the queue
		_, n := autoscale.Split(c.Scale, nodes)
		raised := *low
		raised.Min, nodes = max(low.Min, n), nodes-n
		c.Scale.LowPriority = &raised
	}
	c.Scale.Min = max(c.Scale.Min, min(nodes, c.Scale.Max))
	return wake, nil
}

// expected are the jobs of a pipeline that are expected to put tasks into the queue: those
// that wait for their data, and that of the next due time. Each is expected to have as
// many tasks as the last one that ended.
func (p *Pools) expected(ctx context.Context, name string, c fleetscore.PipelineConfig, now time.Time) (out []autoscale.Start, err error) {
	last, err := p.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: name, Limit: 1,
		States: []fleetscore.JobState{fleetscore.JobSucceeded, fleetscore.JobPartlyFailed, fleetscore.JobFailed}})
	if err != nil || len(last) == 0 {
		return nil, err
	}
	tasks := last[0].Tasks
	view, err := p.ledger.Schedule(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, j := range view.Active {
		if j.State == fleetscore.JobWaiting && j.Due != nil {
			out = append(out, autoscale.Start{At: *j.Due, Tasks: tasks})
		}
	}
	if !view.State.Paused.IsZero() {
		return out, nil
	}
	spec, err := schedule.Parse(c.Schedule)
	if err != nil {
		return nil, err
	}
	after := view.State.LastDue
	if after.IsZero() {
		after = now
	}
	if due, ok := spec.Next(after); ok {
		out = append(out, autoscale.Start{At: due, Tasks: tasks})
	}
	return out, nil
}
