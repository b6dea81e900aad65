package natshub_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/hub/natshub"
	"github.com/fleetscore/fleetscore/internal/testkit/natstest"
)

func TestHubOnCluster(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3)
	hubtest.Run(t, func(t *testing.T) hub.Hub {
		return openHub(t, natshub.Config{URL: c.URL(), Partitions: 3}, hub.Deps{})
	})
}

// book remembers what was acknowledged.
type book struct {
	mu    sync.Mutex // guards what follows
	next  fleetscore.Micros
	acked map[fleetscore.Micros]uint64 // sequence by arrival, which differs in each message
}

// write appends messages to a hub until ctx ends. Errors must be of kind Unavailable.
func (b *book) write(ctx context.Context, t *testing.T, h hub.Hub) {
	for ctx.Err() == nil {
		b.mu.Lock()
		b.next++
		arrived := b.next
		b.mu.Unlock()
		seq, err := h.Append(context.WithoutCancel(ctx), 0, hubtest.At(arrived), hubtest.Batch(int(arrived), 20))
		b.mu.Lock()
		if err == nil {
			b.acked[arrived] = seq
		} else if !fleetscore.Unavailable.Is(err) {
			t.Errorf("append: %v, want kind unavailable", err)
		}
		b.mu.Unlock()
	}
}

func (b *book) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.acked)
}

// check compares the log with the book: what was acknowledged is there under its
// sequence, and nothing is there twice.
func (b *book) check(t *testing.T, h hub.Hub) {
	t.Helper()
	stats, err := h.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if stats[0].First != 1 || stats[0].Messages != stats[0].Last || len(stats[0].Damage) > 0 {
		t.Errorf("the log has gaps: %+v", stats[0])
	}
	list, err := hubtest.ReadN(t.Context(), h, 0, 1, int(stats[0].Last))
	if err != nil {
		t.Fatal(err)
	}
	there := map[fleetscore.Micros]uint64{}
	for _, m := range list {
		if before, twice := there[m.Arrived]; twice {
			t.Errorf("messages %d and %d are the same", before, m.Seq)
		}
		there[m.Arrived] = m.Seq
	}
	for arrived, seq := range b.acked {
		if there[arrived] != seq {
			t.Errorf("the message that was acknowledged as %d is %d", seq, there[arrived])
		}
	}
	t.Logf("%d messages were acknowledged, %d are there", len(b.acked), len(there))
}

// TestLosesMembers: two processes append while members of the cluster are killed or
// frozen, first the one that leads the stream. Nothing that was acknowledged is lost,
// nothing is there twice, and a reader sees all of it in order.
func TestLosesMembers(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3)
	cfg := natshub.Config{URL: c.URL(), Name: "members"}
	a, b := openHub(t, cfg, hub.Deps{}), openHub(t, cfg, hub.Deps{})
	books := &book{acked: map[fleetscore.Micros]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range []hub.Hub{a, a, b, b} {
		wg.Go(func() { books.write(ctx, t, h) })
	}
	reading, stop := context.WithCancel(t.Context())
	defer stop()
	next := uint64(1)
	read := make(chan uint64, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- a.Read(reading, 0, 0, func(m hub.Message) error {
			if m.Seq != next {
				return fmt.Errorf("message %d came in place of %d", m.Seq, next)
			}
			next++
			select {
			case <-read:
			default:
			}
			read <- m.Seq
			return nil
		})
	}()
	for round := range 3 {
		s := c[round]
		if round < 2 {
			s = c.Leader("members-000")
		}
		if round == 1 {
			s.Freeze()
		} else {
			s.Kill()
		}
		before := books.count()
		eventually(t, "appends go on with two of three members", func() bool { return books.count() > before+50 })
		if round == 1 {
			s.Thaw()
		}
		c.Start()
	}
	cancel()
	wg.Wait()
	books.check(t, b)
	stats, err := a.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reader has read everything", func() bool {
		select {
		case seq := <-read:
			return seq == stats[0].Last
		case err := <-ended:
			t.Fatalf("the read ended with %v", err)
			return false
		}
	})
	stop()
	<-ended
}

// TestClusterAway: while all members are gone, appends fail as unavailable, soon and with
// the reason in health; when they are back, everything goes on by itself.
func TestClusterAway(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3)
	told := &hubtest.Health{}
	h := openHub(t, natshub.Config{URL: c.URL(), Name: "away"}, hub.Deps{Health: told})
	books := &book{acked: map[fleetscore.Micros]uint64{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { books.write(ctx, t, h) })
	eventually(t, "appends", func() bool { return books.count() > 20 })
	c.Kill()
	eventually(t, "health says why", func() bool { return strings.Contains(told.Of("hub"), "connection to the NATS servers was lost") })
	eventually(t, "an append fails at once", func() bool {
		start := time.Now()
		_, err := h.Append(t.Context(), 0, hubtest.At(-1), nil)
		return fleetscore.Unavailable.Is(err) && time.Since(start) < time.Second
	})
	if _, err := h.Stats(t.Context()); !fleetscore.Unavailable.Is(err) {
		t.Errorf("stats without servers: %v, want kind unavailable", err)
	}
	if _, _, err := h.Reaches(t.Context(), 0, 1); !fleetscore.Unavailable.Is(err) {
		t.Errorf("question for an epoch without servers: %v, want kind unavailable", err)
	}
	c.Start()
	before := books.count()
	eventually(t, "appends go on", func() bool { return books.count() > before+20 })
	eventually(t, "health is good", func() bool { return told.Of("hub") == "" })
	cancel()
	wg.Wait()
	books.check(t, h)
}

// TestLostAnswers: a message whose answer doesn't come in time is published again, and
// stored once.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	h := openHub(t, natshub.Config{URL: s.URL(), Replicas: 1}, hub.Deps{})
	mustAppend(t, h, 1, nil)
	s.Freeze()
	thaw := time.AfterFunc(5*time.Second, s.Thaw) // after a repeat
	defer thaw.Stop()
	if seq := mustAppend(t, h, 2, hubtest.Batch(1, 10), hubtest.Batch(2, 10)); seq != 3 {
		t.Errorf("the last message is %d, want 3", seq)
	}
	if seq := mustAppend(t, h, 3, nil); seq != 4 {
		t.Errorf("the message after them is %d, want 4", seq)
	}
}
