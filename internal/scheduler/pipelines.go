package scheduler

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// Each pipeline has loops of its own: one decides its due times, one plans its
// waiting jobs, one commits. They wait for events of what they depend on. A
// pipeline that was taken out of the configuration keeps them until its jobs have
// ended.

// active are the states of jobs that haven't ended.
var active = []fleetscore.JobState{fleetscore.JobWaiting, fleetscore.JobQueued, fleetscore.JobRunning, fleetscore.JobCommitting}

// pipelines starts and ends the loops of all pipelines.
func (s *Scheduler) pipelines(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	running := map[string]*runningPipeline{}
	return s.loops.Run(ctx, loop{Kind: "pipelines", Part: "pipelines", Watch: []ledger.Topic{ledger.ConfigTopic}, Step: func(context.Context) (next, error) {
		want, err := s.wanted(ctx)
		if err != nil {
			return next{}, err
		}
		var n next
		for name, p := range running {
			select {
			case <-p.done:
				delete(running, name)
				continue
			default:
			}
			if !want[name] {
				p.stop()
			}
			if !want[name] || p.stopped {
				n.Wake = s.now().Add(lookAgain) // whether it has ended, and is wanted again
			}
		}
		for name := range want {
			if running[name] != nil {
				continue
			}
			child, cancel := context.WithCancel(ctx)
			p := &runningPipeline{cancel: cancel, done: make(chan struct{})}
			running[name] = p
			all.Go(func() {
				defer close(p.done)
				defer cancel()
				_ = s.pipeline(child, name) // it ends only with its context
			})
		}
		return n, nil
	}})
}

// lookAgain is how soon it is looked whether something ended that gives no signal.
const lookAgain = time.Second

type runningPipeline struct {
	cancel  context.CancelFunc
	stopped bool
	done    chan struct{}
}

func (p *runningPipeline) stop() {
	p.stopped = true
	p.cancel()
}

// wanted are the pipelines of the configuration, and those of jobs that haven't
// ended.
func (s *Scheduler) wanted(ctx context.Context) (map[string]bool, error) {
	cfg, err := s.config(ctx)
	if err != nil {
		return nil, err
	}
	jobs, err := s.ledger.Jobs(ctx, ledger.JobFilter{States: active})
	if err != nil {
		return nil, err
	}
	want := map[string]bool{}
	for name := range cfg.Pipelines {
		want[name] = true
	}
	for _, j := range jobs {
		want[j.Pipeline] = true
	}
	return want, nil
}

// config is the configuration in force; empty if none was applied.
func (s *Scheduler) config(ctx context.Context) (fleetscore.Config, error) {
	cfg, _, _, err := s.ledger.Config(ctx)
	if fleetscore.NotFound.Is(err) {
		return fleetscore.Config{}, nil
	}
	return cfg, err
}

// SchedulePart is what a pipeline's schedule is called where it is reported that its
// due times aren't decided.
func SchedulePart(pipeline string) string { return "schedule " + pipeline }

// pipeline runs the loops of one pipeline.
func (s *Scheduler) pipeline(ctx context.Context, name string) error {
	jobs := ledger.JobsTopic(name)
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range []loop{
		{Kind: "schedules", Part: SchedulePart(name), Watch: []ledger.Topic{ledger.ConfigTopic, jobs},
			Step: func(ctx context.Context) (next, error) { return s.due(ctx, name) }},
		{Kind: "plans", Part: "pipeline " + name, Watch: []ledger.Topic{ledger.ConfigTopic, jobs},
			Step: func(ctx context.Context) (next, error) { return s.planAll(ctx, name) }},
		{Kind: "commits", Part: "results of pipeline " + name, Watch: []ledger.Topic{jobs},
			Step: func(ctx context.Context) (next, error) { return s.commitAll(ctx, name) }},
	} {
		group.Go(func() error { return s.loops.Run(ctx, l) })
	}
	return group.Wait()
}
