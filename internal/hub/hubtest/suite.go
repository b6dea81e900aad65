package hubtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// Batch makes n readings of a few keys with a number column "Value" and a string
// column "Unit" that is partly absent; seed varies them.
func Batch(seed, n int) *fleetscore.Readings {
	r := &fleetscore.Readings{Columns: []fleetscore.ReadingColumn{{Name: "Value"}, {Name: "Unit", Strings: []string{}, Present: []bool{}}}}
	for k := range 3 {
		r.Keys = append(r.Keys, fleetscore.Key(fmt.Sprintf("%d%stemperature", seed%5+k, fleetscore.KeySeparator)))
	}
	for i := range n {
		r.KeyIndex = append(r.KeyIndex, uint32((seed+i)%3))
		r.Times = append(r.Times, fleetscore.Micros(1_700_000_000_000_000+int64(seed)*1e6+int64(i)*250_000))
		r.Columns[0].Numbers = append(r.Columns[0].Numbers, float64(seed)+float64(i)/8)
		c := &r.Columns[1]
		if there := (seed+i)%2 == 0; there {
			c.Strings, c.Present = append(c.Strings, "°C"), append(c.Present, true)
		} else {
			c.Strings, c.Present = append(c.Strings, ""), append(c.Present, false)
		}
	}
	return r
}

// At is the stamp of a message that arrived over HTTP at that time.
func At(arrived fleetscore.Micros) hub.Stamp {
	return hub.Stamp{Source: fleetscore.SourceHTTP, Arrived: arrived}
}

var errEnough = errors.New("enough")

// ReadN returns n messages of a partition from a sequence on, waiting for those
// that are still to come.
func ReadN(ctx context.Context, h hub.Hub, partition int, from uint64, n int) ([]hub.Message, error) {
	var out []hub.Message
	err := h.Read(ctx, partition, from, func(m hub.Message) error {
		out = append(out, m)
		if len(out) == n {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return out, err
}

// Run checks an implementation; open returns an empty hub of three partitions,
// which Run closes.
func Run(t *testing.T, open func(t *testing.T) hub.Hub) {
	tests := []struct {
		name string
		run  func(*testing.T, hub.Hub)
	}{
		{"append and read", testAppendRead},
		{"read from the middle", testMiddle},
		{"range", testRange},
		{"several at once", testSeveral},
		{"tail", testTail},
		{"partitions apart", testPartitions},
		{"writers at once", testWriters},
		{"refusals", testRefusals},
		{"reader's error", testReaderError},
		{"stats", testStats},
		{"close", testClose},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t)
			defer h.Close()
			tt.run(t, h)
		})
	}
}

func mustAppend(t *testing.T, h hub.Hub, partition int, arrived fleetscore.Micros, r *fleetscore.Readings) uint64 {
	t.Helper()
	seq, err := h.Append(t.Context(), partition, At(arrived), r)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return seq
}

func mustRead(t *testing.T, h hub.Hub, partition int, from uint64, n int) []hub.Message {
	t.Helper()
	got, err := ReadN(t.Context(), h, partition, from, n)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return got
}

func testAppendRead(t *testing.T, h hub.Hub) {
	want := []hub.Message{
		{Partition: 1, Stamp: At(100), Seq: 1, Readings: Batch(1, 10)},
		{Partition: 1, Stamp: hub.Stamp{Source: "mqtt", Arrived: 200, Unsure: 3}, Seq: 2, Tick: true},
		{Partition: 1, Stamp: At(300), Seq: 3, Readings: Batch(2, 3)},
	}
	for _, m := range want {
		if seq, err := h.Append(t.Context(), 1, m.Stamp, m.Readings); err != nil || seq != m.Seq {
			t.Errorf("append gave sequence %d, %v; want %d", seq, err, m.Seq)
		}
	}
	got := mustRead(t, h, 1, 0, 3)
	if h.ID() <= 0 || got[0].Epoch <= 0 || got[0].Epoch != got[2].Epoch {
		t.Errorf("hub %d, epochs %d to %d of messages: want one epoch above 0", h.ID(), got[0].Epoch, got[2].Epoch)
	}
	if last, ok, err := h.Reaches(t.Context(), 1, got[0].Epoch); err != nil || !ok || last != 3 {
		t.Errorf("the epoch reaches %d, %v, %v; want 3", last, ok, err)
	}
	for what, ask := range map[string]struct {
		partition int
		epoch     int64
	}{"another partition": {0, got[0].Epoch}, "another epoch": {1, got[0].Epoch - 1}} {
		if _, ok, err := h.Reaches(t.Context(), ask.partition, ask.epoch); err != nil || ok {
			t.Errorf("%s has messages of the epoch: %v, %v", what, ok, err)
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs(), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(hub.Message{}, "Epoch")); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
}

func testMiddle(t *testing.T, h hub.Hub) {
	const n = 200
	for i := range n {
		mustAppend(t, h, 0, fleetscore.Micros(i), nil)
	}
	for i, m := range mustRead(t, h, 0, 51, n-50) {
		if want := uint64(51 + i); m.Seq != want || m.Arrived != fleetscore.Micros(want-1) {
			t.Fatalf("message %d has sequence %d and arrival %d, want %d and %d", i, m.Seq, m.Arrived, want, want-1)
		}
	}
}

func testRange(t *testing.T, h hub.Hub) {
	for i := range 60 {
		mustAppend(t, h, 0, fleetscore.Micros(i/3), nil)
	}
	for _, want := range [][]uint64{{1, 60}, {7, 9}, {60, 60}, {9, 7}} {
		next := want[0]
		err := hub.Range(t.Context(), h, 0, want[0], want[1], func(m hub.Message) error {
			if m.Seq != next {
				t.Errorf("range %d: got message %d, want %d", want, m.Seq, next)
			}
			next++
			return nil
		})
		if err != nil || next != max(want[1]+1, want[0]) {
			t.Errorf("range %d ended before message %d: %v", want, next, err)
		}
	}
	seen := 0
	err := hub.Range(t.Context(), h, 0, 1, 60, func(hub.Message) error {
		seen++
		return hub.ErrEnough
	})
	if err != nil || seen != 1 {
		t.Errorf("a range that is ended early: %d messages, %v", seen, err)
	}
	for at, want := range map[fleetscore.Micros]uint64{-1: 1, 0: 1, 1: 4, 19: 58, 20: 61} {
		if got, err := hub.Seek(t.Context(), h, 0, 1, 60, at); err != nil || got != want {
			t.Errorf("the first message that arrived at %d or later is %d, %v; want %d", at, got, err, want)
		}
	}
}

func testSeveral(t *testing.T, h hub.Hub) {
	mustAppend(t, h, 0, 1, nil)
	seq, err := h.Append(t.Context(), 0, At(2), Batch(1, 3), Batch(2, 1), Batch(3, 2))
	if err != nil || seq != 4 {
		t.Fatalf("append of three gave sequence %d, %v; want 4", seq, err)
	}
	for i, m := range mustRead(t, h, 0, 2, 3) {
		if m.Seq != uint64(i+2) || m.Arrived != 2 || m.Readings.Len() != []int{3, 1, 2}[i] {
			t.Errorf("message %d is %+v", i+2, m)
		}
	}
	if seq, err := h.Append(t.Context(), 0, At(3)); err != nil || seq != 5 || !mustRead(t, h, 0, 5, 1)[0].Tick {
		t.Errorf("append without readings gave sequence %d, %v; want a tick at 5", seq, err)
	}
}

func testTail(t *testing.T, h hub.Hub) {
	got := make(chan uint64)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := h.Read(ctx, 2, 3, func(m hub.Message) error {
			got <- m.Seq
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("read ended with %v, want %v", err, context.Canceled)
		}
	})
	for i := range uint64(5) {
		seq := mustAppend(t, h, 2, 0, nil)
		if seq < 3 {
			continue
		}
		if g := <-got; g != i+1 {
			t.Errorf("tail gave %d, want %d", g, i+1)
		}
	}
	cancel()
	wg.Wait()
}

func testPartitions(t *testing.T, h hub.Hub) {
	if h.Partitions() != 3 {
		t.Fatalf("%d partitions, want 3", h.Partitions())
	}
	for i := range 9 {
		mustAppend(t, h, i%3, fleetscore.Micros(i), nil)
	}
	for p := range 3 {
		for i, m := range mustRead(t, h, p, 0, 3) {
			if m.Partition != p || m.Seq != uint64(i+1) || m.Arrived != fleetscore.Micros(3*i+p) {
				t.Errorf("partition %d message %d is %+v", p, i, m)
			}
		}
	}
}

func testWriters(t *testing.T, h hub.Hub) {
	const writers, each = 8, 25
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards seqs
		seqs = map[uint64]fleetscore.Micros{}
	)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				arrived := fleetscore.Micros(w*each + i)
				seq, err := h.Append(t.Context(), 0, At(arrived), Batch(i, 3))
				if err != nil {
					t.Errorf("append: %v", err)
				}
				mu.Lock()
				seqs[seq] = arrived
				mu.Unlock()
			}
		})
	}
	got := mustRead(t, h, 0, 0, writers*each)
	wg.Wait()
	if len(seqs) != writers*each {
		t.Fatalf("%d distinct sequences, want %d", len(seqs), writers*each)
	}
	for _, m := range got {
		if seqs[m.Seq] != m.Arrived {
			t.Errorf("sequence %d holds the message of %d, want %d", m.Seq, m.Arrived, seqs[m.Seq])
		}
	}
}

func testRefusals(t *testing.T, h hub.Hub) {
	for _, p := range []int{-1, 3} {
		if _, err := h.Append(t.Context(), p, At(0), nil); !fleetscore.Invalid.Is(err) {
			t.Errorf("append to partition %d: %v, want kind invalid", p, err)
		}
		if err := h.Read(t.Context(), p, 0, nil); !fleetscore.Invalid.Is(err) {
			t.Errorf("read of partition %d: %v, want kind invalid", p, err)
		}
	}
	for _, name := range []string{"", strings.Repeat("s", fleetscore.MaxSourceBytes+1)} {
		if _, err := h.Append(t.Context(), 0, hub.Stamp{Source: fleetscore.Source(name)}, nil); !fleetscore.Invalid.Is(err) {
			t.Errorf("append from source %q: %v, want kind invalid", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Append(ctx, 0, At(0), nil); err == nil {
		t.Error("append with an ended context succeeded")
	}
	if err := h.Read(ctx, 0, 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("read with an ended context: %v, want %v", err, context.Canceled)
	}
}

func testReaderError(t *testing.T, h hub.Hub) {
	for range 5 {
		mustAppend(t, h, 0, 0, nil)
	}
	want := errors.New("no more, please")
	calls := 0
	err := h.Read(t.Context(), 0, 2, func(hub.Message) error {
		calls++
		return want
	})
	if err != want || calls != 1 {
		t.Errorf("read gave %v after %d calls, want %v after 1", err, calls, want)
	}
}

func testStats(t *testing.T, h hub.Hub) {
	for range 4 {
		mustAppend(t, h, 1, fleetscore.MicrosOf(time.Now()), Batch(0, 10))
	}
	got, err := h.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []hub.Stats{
		{Partition: 0, First: 1},
		{Partition: 1, First: 1, Last: 4, Messages: 4},
		{Partition: 2, First: 1},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(hub.Stats{}, "SizeBytes", "Oldest")); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
	if got[1].SizeBytes == 0 {
		t.Error("a partition with messages has size 0")
	}
	if age := fleetscore.MicrosOf(time.Now()) - got[1].Oldest; age < 0 || age > 60e6 || got[0].Oldest != 0 {
		t.Errorf("the oldest message is said to be of %s, that of an empty partition of %s", got[1].Oldest, got[0].Oldest)
	}
}

func testClose(t *testing.T, h hub.Hub) {
	mustAppend(t, h, 0, 0, nil)
	started := make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- h.Read(context.WithoutCancel(t.Context()), 0, 0, func(hub.Message) error {
			close(started)
			return nil
		})
	}()
	<-started
	if err := h.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-ended; !fleetscore.Unavailable.Is(err) {
		t.Errorf("the waiting read ended with %v, want kind unavailable", err)
	}
	if _, err := h.Append(t.Context(), 0, At(0), nil); !fleetscore.Unavailable.Is(err) {
		t.Errorf("append after close: %v, want kind unavailable", err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}
