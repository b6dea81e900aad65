// Package rejected keeps messages whose readings couldn't be taken, and whose senders can't be
// told or would send them for ever: those that came by MQTT, and records of Kafka's topics. They are in
// the ledger with the reason, until somebody hands them over again, drops them, or newer ones take
// their place. docs/http-readings.md says what people do with them.
//
// Keep writes the messages of all callers together, so that a device that sends nothing
// else costs little. Run owns the only goroutine; all methods are safe for concurrent use.
package rejected

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
)

// How much is kept.
const (
	MaxCount = 10_000
	MaxBytes = 64 << 20
	MaxAge   = 30 * 24 * time.Hour
	maxText  = 256 << 10 // of one message; a longer one is kept without its text
)

const (
	maxWaiting = 1000                  // messages that wait to be written
	pause      = 20 * time.Millisecond // between two writes
	boundEvery = time.Second           // how often messages are removed that are too many
	putLimit   = 10 * time.Second      // of one write
)

// Deps is what a Keeper works with.
type Deps struct {
	Ledger  ledger.Rejects
	Now     func() time.Time
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil means none
}

// Keeper keeps rejected messages.
type Keeper struct {
	deps    Deps
	wake    chan struct{}     // cap 1: something waits
	bounded time.Time         // when too many were removed last; used by Run alone
	trouble lifecycle.Trouble // used by Run alone
	outcome *prometheus.CounterVec

	mu      sync.Mutex // guards what follows
	waiting []ledger.Rejected
	batch   *batch // of those that wait
	ended   bool
}

// batch is messages that are written together.
type batch struct {
	done chan struct{} // closed when they are
}

// New builds a Keeper; Run must be running for messages to be kept.
func New(deps Deps) (*Keeper, error) {
	k := &Keeper{deps: deps, wake: make(chan struct{}, 1), batch: &batch{done: make(chan struct{})}, trouble: new(lifecycle.Outages).Trouble(deps.Log),
		outcome: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleetscore_gateway_rejected_messages_total", Help: "Rejected messages by whether they were kept; lost ones couldn't be written."}, []string{"outcome"})}
	for _, o := range []string{"kept", "lost"} {
		k.outcome.WithLabelValues(o)
	}
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(k.outcome); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Keep returns once the messages are on disk, or can't be written, which the log and the metric say: readings don't
// wait for that.
func (k *Keeper) Keep(list ...ledger.Rejected) {
	if len(list) == 0 {
		return
	}
	now := k.deps.Now()
	k.mu.Lock()
	if k.ended || len(k.waiting)+len(list) > maxWaiting {
		k.mu.Unlock()
		k.count(false, len(list))
		return
	}
	for _, r := range list {
		if r.Arrived = now; len(r.Text) > maxText {
			r.Text = nil
		}
		k.waiting = append(k.waiting, r)
	}
	b := k.batch
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
	<-b.done // within the time limit of a write and the pause
}

func (k *Keeper) count(kept bool, n int) {
	outcome := "kept"
	if !kept {
		outcome = "lost"
	}
	k.outcome.WithLabelValues(outcome).Add(float64(n))
}

// Run writes what is kept, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		}
		k.flush(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// end writes what waits, and keeps nothing more.
func (k *Keeper) end() {
	k.mu.Lock()
	k.ended = true
	k.mu.Unlock()
	k.flush(context.Background())
}

// flush writes all that waits.
func (k *Keeper) flush(ctx context.Context) {
	k.mu.Lock()
	list, b := k.waiting, k.batch
	k.waiting, k.batch = nil, &batch{done: make(chan struct{})}
	k.mu.Unlock()
	defer close(b.done)
	if len(list) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putLimit)
	defer cancel()
	var bound ledger.RejectsBound
	if now := k.deps.Now(); now.Sub(k.bounded) >= boundEvery {
		bound = ledger.RejectsBound{Count: MaxCount, Bytes: MaxBytes, Before: now.Add(-MaxAge)}
		k.bounded = now
	}
	err := k.deps.Ledger.PutRejected(ctx, list, bound)
	if err != nil {
		k.trouble.Failed(slog.LevelError, "rejected messages can't be kept", fleetscore.Wrap("keep rejected messages", "", err))
	} else {
		k.trouble.Works("rejected messages are kept again")
	}
	k.count(err == nil, len(list))
}
