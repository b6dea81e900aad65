package pool

import (
	"context"
	"errors"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// steered is a pool whose size a formula decides.
type steered struct {
	text      string           // of the formula
	targets   map[string]int64 // in force
	option    string           // in force
	evaluated time.Time        // when the formula was evaluated last; zero before the first time
}

// FormulaPart is what a pool's formula is called where it is reported that its
// evaluation failed.
func FormulaPart(pool string) string { return "formula of pool " + pool }

// forgetFormulas forgets the pools whose size no formula decides any more.
func (p *Pools) forgetFormulas(cfg fleetscore.Config) {
	for name := range p.formulas {
		if cfg.Pools[name].Scale.Formula == "" {
			delete(p.formulas, name)
			p.health.Warn(FormulaPart(name), "")
		}
	}
}

// byFormula takes a sample and evaluates the formula where it is time, and decides how
// the pool comes to the targets in force.
func (p *Pools) byFormula(ctx context.Context, name string, c fleetscore.PoolConfig, s autoscale.State) (d autoscale.Decision, rest time.Duration, err error) {
	f, err := p.steer(ctx, name, c, s)
	if err != nil {
		return d, rest, err
	}
	next, err := p.sample(ctx, name, c.Slots, s, f.targets)
	if err != nil {
		return d, rest, err
	}
	every := c.Scale.EvaluationInterval.D()
	if due(s.Now, f.evaluated, every) {
		if err := p.evaluate(ctx, name, c, f, s.Now); err != nil {
			return d, rest, err
		}
	}
	rest = min(maxRest, next, f.evaluated.Add(every).Sub(s.Now))
	dedicated, low := autoscale.Bounded(c.Scale, f.targets)
	return autoscale.Reach(dedicated, low, f.option, s), rest, nil
}

// sample keeps a sample of a pool where it is time for one, and returns when it is time for
// the next.
func (p *Pools) sample(ctx context.Context, name string, slots int, s autoscale.State, targets map[string]int64) (next time.Duration, err error) {
	if due(s.Now, p.newest[name].At, formula.SamplePeriod) {
		if s.Succeeded, s.Failed, err = p.ledger.TasksEnded(ctx, name); err != nil {
			return 0, err
		}
		sample := autoscale.Measure(slots, s, targets)
		if err := p.ledger.AddSample(ctx, name, sample, s.Now.Add(-autoscale.Horizon)); err != nil {
			return 0, err
		}
		p.newest[name] = sample
		for _, n := range s.Nodes {
			if n.Load != nil && n.State.Speaks() {
				p.loads[n.ID] = n.Load
			} else {
				delete(p.loads, n.ID)
			}
		}
	}
	return p.newest[name].At.Add(formula.SamplePeriod).Sub(s.Now), nil
}

// due reports whether something that is done once in a period has to be done again. What
// was done in the future was done before the clock was set back.
func due(now, last time.Time, period time.Duration) bool {
	return last.IsZero() || last.After(now) || now.Sub(last) >= period
}

// steer is what is known of a pool's formula. After a start of the server that is what
// the last evaluation left. A pool that gets its first formula begins with the nodes that
// it has, so that a formula that fails leaves it as it is. A formula that is changed is
// evaluated at once.
func (p *Pools) steer(ctx context.Context, name string, c fleetscore.PoolConfig, s autoscale.State) (*steered, error) {
	f := p.formulas[name]
	if f == nil {
		last, err := p.ledger.Evaluations(ctx, name, 1)
		if err != nil {
			return nil, err
		}
		f = &steered{text: c.Scale.Formula, option: formula.Requeue}
		if len(last) > 0 && last[0].Formula == autoscale.FormulaID(f.text) {
			f.targets, f.option, f.evaluated = last[0].Targets, last[0].Option, last[0].At
		} else {
			low := s.AliveOf(fleetscore.LowPriority)
			f.targets = map[string]int64{formula.Dedicated: int64(s.Alive() - low), formula.LowPriority: int64(low)}
		}
		p.formulas[name] = f
	}
	if f.text != c.Scale.Formula {
		f.text, f.evaluated = c.Scale.Formula, time.Time{}
	}
	return f, nil
}

// evaluate evaluates the formula. What it decided is in the ledger before it is carried
// out.
func (p *Pools) evaluate(ctx context.Context, name string, c fleetscore.PoolConfig, f *steered, now time.Time) error {
	samples, err := p.ledger.Samples(ctx, name, now.Add(-autoscale.Horizon))
	if err != nil {
		return err
	}
	r := formula.Evaluate(f.text, formula.State{Now: now.UTC(), Option: f.option, Samples: autoscale.Series(samples), Current: map[string]float64{
		formula.Dedicated: float64(f.targets[formula.Dedicated]), formula.LowPriority: float64(f.targets[formula.LowPriority])}})
	e := autoscale.Evaluated(c.Scale, now, p.newest[name], r)
	if err := p.ledger.AddEvaluation(ctx, name, e); err != nil {
		return err
	}
	f.evaluated, f.targets, f.option = now, r.Targets, r.Option
	if r.Err != nil {
		p.log.Warn("a pool's formula failed; the pool stays as it is", "pool", name, "error", r.Err)
		p.health.Warn(FormulaPart(name), "its evaluation failed, and the pool stays as it is: "+fleetscore.Printable(r.Err.Error()))
		return nil
	}
	p.health.Warn(FormulaPart(name), "")
	p.log.Info("a pool's formula was evaluated", "pool", name, "nodes", e.Nodes, "result", e.Result)
	return nil
}

// interrupt takes back the leases of nodes that take no more. The nodes learn of it by
// their next sign of life, end the tasks and then themselves. A result that comes
// nevertheless is refused, because its lease has ended.
func (p *Pools) interrupt(ctx context.Context, pool string, ids []fleetscore.NodeID) error {
	terminate := false
	if f := p.formulas[pool]; f != nil {
		terminate = f.option == formula.Terminate
	}
	var problems []error
	for _, id := range ids {
		_, err := p.ledger.TakeBack(ctx, ledger.LeaseFilter{Node: id}, p.now(), func(l ledger.Leased) (ledger.AttemptEnd, error) {
			const reason = "the formula of the pool ended the node"
			if terminate {
				t := dispatch.After(l.Task, dispatch.Failed, reason, 1)
				t.Reason = reason + " and says terminate"
				return ledger.AttemptEnd{State: string(dispatch.Failed), Reason: t.Reason, Task: t}, nil
			}
			return ledger.AttemptEnd{State: string(dispatch.Lost), Reason: reason, Task: dispatch.After(l.Task, dispatch.Lost, reason, l.Job.Config.Limits.Tries)}, nil
		})
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}
