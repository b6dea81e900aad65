package lifecycle

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// Loop is one thing that is done again and again for one subject, such as planning the
// jobs of a pipeline. Each loop runs by itself, so that an error or slow storage in
// one doesn't delay the others. T is the type of the topics of events.
type Loop[T comparable] struct {
	Kind  string // for metrics: schedules, plans, commits, …
	Part  string // for people: what doesn't work while Step fails, such as "schedule anomalies"
	Watch []T    // an event of these topics starts the next step
	Step  func(context.Context) (Next[T], error)
	// Gentle: where events follow each other closely, the loop rests four times as long as a
	// step took, at most longestRest, so that steps that look at much don't fill a processor.
	Gentle bool
}

// longestRest bounds the rest of a gentle loop.
const longestRest = 500 * time.Millisecond

// Next is when a loop steps again, unless an event comes first.
type Next[T comparable] struct {
	Wake   time.Time // at the latest; zero means only after an event
	Topics []T       // what the step depends on; nil means as before
}

// Loops is what the loops of one room share. Its Run may be called concurrently.
type Loops[T comparable] struct {
	// Watch returns a channel that gets a signal after events of the topics, and a
	// function that ends the watch.
	Watch  func(topics ...T) (<-chan struct{}, func())
	Now    func() time.Time  // the clock that Next.Wake is read by
	Failed func(kind string) // counts a step that failed
	Health *obs.Health       // a step that fails is reported there by its part; nil means nowhere
	Log    *slog.Logger
	// Outages tells a cause once that stops several loops; nil tells it for each loop.
	Outages *Outages
	// Look is how often a loop looks at the clock, which may run apart from timers:
	// a timer doesn't notice that the machine slept or that the clock was set. 0 means
	// a second.
	Look time.Duration
}

// The waits of a loop whose step fails: each is twice as long as the one before, and a
// fifth more or less so that loops don't act at the same moment. An event shortens the
// wait to soonest.
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

// Run steps until ctx ends, and returns the context's error. An error of a step is
// reported, and the step is repeated.
func (s Loops[T]) Run(ctx context.Context, l Loop[T]) error {
	changes, stop := s.Watch(l.Watch...)
	defer func() { stop() }()
	defer s.Health.Report(l.Part, "")
	trouble := s.Outages.Trouble(s.Log)
	defer trouble.Ends()
	failures := 0
	for {
		begun := time.Now()
		n, err := l.Step(ctx)
		took := time.Since(begun)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failures++
			wait := again(l.Part, failures)
			s.Failed(l.Kind)
			s.Health.Report(l.Part, err.Error())
			trouble.Failed(slog.LevelError, "work failed and is tried again until it goes on; other parts may wait for the same", err, "part", l.Part)
			if err := pause(ctx, wait, changes); err != nil {
				return err
			}
			continue
		}
		if failures > 0 {
			trouble.Works("work goes on after failures", "part", l.Part, "failures", failures)
		}
		failures = 0
		s.Health.Report(l.Part, "")
		if n.Topics != nil && !slices.Equal(n.Topics, l.Watch) {
			stop()
			l.Watch = n.Topics
			changes, stop = s.Watch(l.Watch...)
			continue // once more, as events may have come before the watch
		}
		if err := s.rest(ctx, n.Wake, changes); err != nil {
			return err
		}
		if rest := min(4*took, longestRest) - time.Since(begun.Add(took)); l.Gentle && rest > 0 {
			if err := pause(ctx, rest, nil); err != nil {
				return err
			}
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

// rest waits for an event or until the clock says wake.
func (s Loops[T]) rest(ctx context.Context, wake time.Time, changes <-chan struct{}) error {
	look := s.Look
	if look == 0 {
		look = time.Second
	}
	var timer *time.Timer
	for {
		var fires <-chan time.Time
		if !wake.IsZero() {
			left := wake.Sub(s.Now())
			if left <= 0 && timer != nil {
				return nil
			}
			left = min(max(left, time.Millisecond), look) // at least a millisecond, so that no loop uses up a processor
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
