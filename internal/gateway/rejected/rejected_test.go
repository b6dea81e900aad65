package rejected

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fleetscore/fleetscore/internal/ledger"
)

// slow is a ledger whose writes wait until they are let go.
type slow struct {
	ledger.Rejects
	writing chan struct{} // a write begins
	release chan error    // how it ends

	mu     sync.Mutex // guards what follows
	kept   []ledger.Rejected
	bounds []ledger.RejectsBound
}

func (s *slow) PutRejected(_ context.Context, list []ledger.Rejected, bound ledger.RejectsBound) error {
	s.writing <- struct{}{}
	err := <-s.release
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.kept = append(s.kept, list...)
	}
	s.bounds = append(s.bounds, bound)
	return err
}

// keeper is a Keeper that runs until the test's bubble ends it.
func keeper(t *testing.T) (k *Keeper, s *slow, end func()) {
	t.Helper()
	s = &slow{writing: make(chan struct{}), release: make(chan error)}
	k, err := New(Deps{Ledger: s, Now: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	return k, s, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func message(i int) ledger.Rejected { return ledger.Rejected{Topic: fmt.Sprint(i), Text: []byte("x")} }

func counts(k *Keeper) (kept, lost float64) {
	return testutil.ToFloat64(k.outcome.WithLabelValues("kept")), testutil.ToFloat64(k.outcome.WithLabelValues("lost"))
}

// TestOverflow: while a write takes long, as many messages wait as there is room for. Those beyond are counted as lost and don't hold up
// their senders, and what waited is written together.
func TestOverflow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, s, end := keeper(t)
		first := make(chan struct{})
		go func() { k.Keep(message(0)); close(first) }()
		<-s.writing
		var waiting sync.WaitGroup
		for i := range maxWaiting {
			waiting.Go(func() { k.Keep(message(1 + i)) })
		}
		synctest.Wait()
		k.Keep(message(-1)) // there is no room: it returns at once
		k.Keep(message(-2), message(-3))
		if kept, lost := counts(k); kept != 0 || lost != 3 {
			t.Errorf("%v are kept and %v lost, want 0 and 3", kept, lost)
		}
		s.release <- nil
		<-first
		<-s.writing
		s.release <- nil
		waiting.Wait()
		if kept, lost := counts(k); kept != 1+maxWaiting || lost != 3 || len(s.kept) != 1+maxWaiting || len(s.bounds) != 2 {
			t.Errorf("%v are kept and %v lost in %d writes, want %d and 3 in 2", kept, lost, len(s.bounds), 1+maxWaiting)
		}
		for _, r := range s.kept {
			if strings.HasPrefix(r.Topic, "-") {
				t.Errorf("message %s was kept", r.Topic)
			}
		}
		end()
	})
}

// TestFailedWrites: messages that can't be written are lost, and their senders go on; later ones are kept. Old ones are removed at most
// once a second.
func TestFailedWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, s, end := keeper(t)
		for i, err := range []error{errors.New("the disk is full"), nil, nil} {
			done := make(chan struct{})
			go func() { k.Keep(message(i)); close(done) }()
			<-s.writing
			s.release <- err
			<-done
		}
		if kept, lost := counts(k); kept != 2 || lost != 1 {
			t.Errorf("%v are kept and %v lost, want 2 and 1", kept, lost)
		}
		if s.bounds[0].Count != MaxCount || s.bounds[0].Bytes != MaxBytes || s.bounds[1].Count != 0 || s.bounds[2].Count != 0 {
			t.Errorf("bounds are %+v", s.bounds)
		}
		end()
		k.Keep(message(9)) // nobody writes any more
		if kept, lost := counts(k); kept != 2 || lost != 2 {
			t.Errorf("after the end %v are kept and %v lost, want 2 and 2", kept, lost)
		}
	})
}

// TestAtTheEnd: what waits when the server ends is written; texts that are too long are kept without them.
func TestAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, s, end := keeper(t)
		first, second := make(chan struct{}), make(chan struct{})
		go func() { k.Keep(message(0)); close(first) }()
		<-s.writing
		go func() {
			k.Keep(ledger.Rejected{Topic: "long", Text: make([]byte, maxText+1)})
			close(second)
		}()
		synctest.Wait()
		ended := make(chan struct{})
		go func() { end(); close(ended) }()
		synctest.Wait()
		s.release <- nil
		<-s.writing
		s.release <- nil
		<-ended
		<-first
		<-second
		if len(s.kept) != 2 || s.kept[1].Topic != "long" || s.kept[1].Text != nil {
			t.Errorf("kept are %+v", s.kept)
		}
	})
}
