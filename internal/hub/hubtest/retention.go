package hubtest

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// RunRetention checks that an implementation keeps to a size and removes nothing that is needed. open
// returns an empty hub of three partitions that keeps at most size bytes and checks that within a second;
// age alone makes it remove nothing. RunRetention closes the hub.
func RunRetention(t *testing.T, open func(t *testing.T, size int64, deps hub.Deps) hub.Hub) {
	const size = 300_000
	told := &Health{}
	now := time.Now()
	var needed [3]atomic.Uint64 // nothing is known at first
	h := open(t, size, hub.Deps{Health: told, Now: func() time.Time { return now }, Needed: func(partition int) uint64 { return needed[partition].Load() }})
	defer h.Close()
	look := func() ([]hub.Stats, int64, int64) { return look(t, h) }
	at := fleetscore.MicrosOf(now)
	fill := func(partition, n int) {
		for i := range n {
			mustAppend(t, h, partition, at, Batch(i, 300))
		}
	}
	fill(0, 400) // much more than all may have
	fill(1, 5)
	fill(2, 150)
	_, all, _ := look()
	if all < 3*size {
		t.Fatalf("all messages have only %d bytes", all)
	}

	t.Run("needed messages stay", func(t *testing.T) {
		for i := range needed {
			needed[i].Store(1)
		}
		waitUntil(t, func() bool { _, _, overdue := look(); return overdue > 0 && told.Of("hub retention") != "" })
		stats, sum, overdue := look()
		if sum != all || stats[0].First != 1 || stats[2].First != 1 {
			t.Errorf("%d of %d bytes are left, from messages %d and %d on, though all are needed", sum, all, stats[0].First, stats[2].First)
		}
		if text := told.Of("hub retention"); overdue > all || !strings.Contains(text, "are kept, because a query still needs them") {
			t.Errorf("%d of %d bytes are said to be overdue, and health says %q", overdue, all, text)
		}
	})
	t.Run("the oldest go", func(t *testing.T) {
		needed[0].Store(101)
		waitUntil(t, func() bool { stats, _, _ := look(); return stats[0].First > 90 })
		if stats, _, overdue := look(); stats[0].First > 101 || overdue == 0 {
			t.Errorf("the log begins with message %d, and 101 is needed; %d bytes are overdue", stats[0].First, overdue)
		}
		for i := range needed {
			needed[i].Store(1 << 62)
		}
		waitUntil(t, func() bool { _, sum, overdue := look(); return sum <= size && overdue == 0 })
		waitUntil(t, func() bool { return told.Of("hub retention") == "" })
		stats, sum, _ := look()
		if sum < size/2 {
			t.Errorf("only %d bytes are left of %d that may stay", sum, size)
		}
		for i, last := range []uint64{400, 5, 150} {
			s := stats[i]
			if s.Last != last || s.First > last || s.Messages != last+1-s.First || (s.First == 1) != (i == 1) || s.Oldest == 0 {
				t.Errorf("partition %d has the messages %d to %d, %d of %d, the oldest of %s; want the newest, and all of the partition that is below its share", i, s.First, s.Last, s.Messages, last, s.Oldest)
			}
			if got := mustRead(t, h, i, 0, 1); got[0].Seq != s.First {
				t.Errorf("partition %d: the first message is %d, want %d", i, got[0].Seq, s.First)
			}
		}
		if a, b := int64(stats[0].SizeBytes), int64(stats[2].SizeBytes); a > 2*b || b > 2*a {
			t.Errorf("two partitions that want more than their shares have %d and %d bytes", a, b)
		}
	})
	t.Run("it stays so", func(t *testing.T) {
		fill(1, 300)
		waitUntil(t, func() bool { _, sum, _ := look(); return sum <= size })
		stats, _, _ := look()
		if got := mustRead(t, h, 1, 0, 1); got[0].Seq != stats[1].First || stats[1].Last != 305 {
			t.Errorf("the first message is %d, and the log has %d to %d", got[0].Seq, stats[1].First, stats[1].Last)
		}
	})
}

// look describes the partitions, and how much is there and overdue in all of them.
func look(t *testing.T, h hub.Hub) (stats []hub.Stats, sum, overdue int64) {
	t.Helper()
	stats, err := h.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stats {
		sum, overdue = sum+int64(s.SizeBytes), overdue+s.OverdueBytes
	}
	return stats, sum, overdue
}

// waitUntil waits for what a hub does by itself; it gives no signal.
func waitUntil(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within a minute")
		}
	}
}

// Health remembers what a hub told.
type Health struct {
	mu    sync.Mutex // guards what follows
	parts map[string]string
}

// Report takes what is wrong with a part.
func (h *Health) Report(part, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.parts == nil {
		h.parts = map[string]string{}
	}
	h.parts[part] = text
}

// Warn is the same as Report.
func (h *Health) Warn(part, text string) { h.Report(part, text) }

// Of is what was told of a part last.
func (h *Health) Of(part string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.parts[part]
}
