package scheduler

import (
	"context"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// next is when a loop steps again, unless an event comes first.
type next struct {
	wake   time.Time      // at the latest; zero means only after an event
	topics []ledger.Topic // what the step depends on; nil means as before
}

// loop is one thing that is done again and again for one subject. Each runs by
// itself, so that an error or a slow store in one holds up no other.
type loop struct {
	kind  string // for metrics: schedules, plans, commits, …
	part  string // for people: what doesn't work while step fails, such as "schedule anomalies"
	watch []ledger.Topic
	step  func(context.Context) (next, error)
}

// The waits of a loop whose step fails: twice as long each time, a fifth more or
// less so that loops don't fall into step. An event shortens the wait to soonest.
const (
	firstAgain = 200 * time.Millisecond
	maxAgain   = 30 * time.Second
	soonest    = time.Second
)

// again is how long a part waits after its n-th failure in a row (1, 2, …).
func again(part string, n int) time.Duration {
	d := firstAgain
	for i := n; i > 1 && d < maxAgain; i-- {
		d *= 2
	}
	return time.Duration(float64(min(d, maxAgain)) * (0.8 + 0.4*clock.Spread(part, n)))
}

// run steps until ctx ends. An error is reported, and the step is tried again:
// what is true lies in the ledger.
func (s *Scheduler) run(ctx context.Context, l loop) error {
	changes, stop := s.ledger.Watch(l.watch...)
	defer func() { stop() }()
	defer s.health.Report(l.part, "")
	failures := 0
	for {
		n, err := l.step(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failures++
			wait := again(l.part, failures)
			s.metrics.errors.WithLabelValues(l.kind).Inc()
			s.health.Report(l.part, err.Error())
			s.log.Error("scheduling is held up and tried again", "part", l.part, "error", err, "failures", failures, "wait", wait)
			if err := pause(ctx, wait, changes); err != nil {
				return err
			}
			continue
		}
		if failures > 0 {
			s.log.Info("scheduling goes on", "part", l.part, "failures", failures)
		}
		failures = 0
		s.health.Report(l.part, "")
		if n.topics != nil && !slices.Equal(n.topics, l.watch) {
			stop()
			l.watch = n.topics
			changes, stop = s.ledger.Watch(l.watch...)
			continue // once more, as events may have come before the watch
		}
		if err := s.rest(ctx, n.wake, changes); err != nil {
			return err
		}
	}
}

// pause waits after a failure.
func pause(ctx context.Context, wait time.Duration, changes <-chan struct{}) error {
	timer, short := time.NewTimer(wait), time.NewTimer(min(wait, soonest))
	defer timer.Stop()
	defer short.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	case <-changes:
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-short.C:
		return nil
	}
}

// rest waits for a change or until the scheduler's clock says wake. It looks at
// the clock now and then, because a timer knows nothing of a machine that slept or
// of a clock that was set.
func (s *Scheduler) rest(ctx context.Context, wake time.Time, changes <-chan struct{}) error {
	var timer *time.Timer
	for {
		var fires <-chan time.Time
		if !wake.IsZero() {
			left := wake.Sub(s.now())
			if left <= 0 && timer != nil {
				return nil
			}
			left = min(max(left, time.Millisecond), s.look) // a millisecond at least: no step is to run hot
			if timer == nil {
				timer = time.NewTimer(left)
				defer timer.Stop()
			} else {
				timer.Reset(left)
			}
			fires = timer.C
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changes:
			return nil
		case <-fires:
		}
	}
}
