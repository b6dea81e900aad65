package server

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/hub/tail"
)

// looked counts how often somebody looked into a hub.
type looked struct {
	hub.Hub
	n atomic.Int64
}

func (l *looked) Stats(ctx context.Context) ([]hub.Stats, error) {
	l.n.Add(1)
	return l.Hub.Stats(ctx)
}

// TestKeysForOneViewer: the keys of the log are listed for one viewer after the other, who takes memory for all of them. One that
// gives up while it waits has cost nothing, and one that can't go on lets the next one in.
func TestKeysForOneViewer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := hubtest.New(1)
		if _, err := log.Append(t.Context(), 0, hubtest.At(1), hubtest.Batch(1, 10)); err != nil {
			t.Fatal(err)
		}
		h := &looked{Hub: log}
		s := &streams{server: &Server{}, hub: h, listing: make(chan struct{}, 1)}
		gone := errors.New("the viewer has gone")
		answers := make(chan error)
		ask := func(ctx context.Context, fn func(tail.Key) error) {
			go func() { answers <- s.keys(ctx, tail.Query{Partition: -1}, fn) }()
			synctest.Wait()
		}
		reads, leaves := make(chan struct{}), false
		ask(t.Context(), func(tail.Key) error { // a viewer that reads slowly, and goes in the middle
			<-reads
			if leaves {
				return gone
			}
			return nil
		})
		first := h.n.Load()
		if first == 0 {
			t.Error("the first viewer has to wait")
		}
		got := 0
		ask(t.Context(), func(tail.Key) error { got++; return nil })
		short, cancel := context.WithCancel(t.Context())
		ask(short, func(tail.Key) error { t.Error("the third viewer got a key"); return nil })
		if n := h.n.Load(); n != first || got > 0 {
			t.Errorf("the log was read %d times while the first viewer reads, and the second viewer has %d keys", n-first, got)
		}
		cancel()
		if err := <-answers; !errors.Is(err, context.Canceled) || h.n.Load() != first {
			t.Errorf("a viewer that gave up: %v, and the log was read %d times", err, h.n.Load()-first)
		}
		reads <- struct{}{}
		synctest.Wait()
		if got > 0 {
			t.Errorf("the second viewer has %d keys before the first one has all", got)
		}
		leaves = true
		reads <- struct{}{}
		for range 2 {
			if err := <-answers; err != nil && !errors.Is(err, gone) {
				t.Error(err)
			}
		}
		if got != 3 {
			t.Errorf("the second viewer has %d keys, want 3", got)
		}
	})
}
