package hub_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// waitFor waits until the hub has trimmed as expected; trimming gives no signal.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen in time", what)
		}
	}
}

// TestRetentionKeepsWhatIsNeeded: no message that isn't committed is removed, neither
// when the clock is two days ahead nor when a query has stopped.
func TestRetentionKeepsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var now, needed atomic.Int64
	now.Store(int64(fleetscore.MicrosOf(time.Now())))
	health := &obs.Health{}
	asked := make(chan struct{}, 100)
	open := func() hub.Hub {
		h, err := hub.Open(t.Context(), hub.Config{Dir: dir, Retention: time.Second}, hub.Deps{Health: health,
			Now: func() time.Time { return fleetscore.Micros(now.Load()).Time() },
			Needed: func(int) uint64 {
				select {
				case asked <- struct{}{}:
				default:
				}
				return uint64(needed.Load())
			}})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for range 2 { // each opening begins a file
		h := open()
		for range 5 {
			if _, err := h.Append(t.Context(), 0, hubtest.At(fleetscore.Micros(now.Load())), hubtest.Batch(1, 3)); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if got := hub.LastArrival(dir); got != fleetscore.Micros(now.Load()) {
			t.Errorf("the last arrival is said to be %s", got)
		}
	}
	now.Add((48 * time.Hour).Microseconds())
	h := open()
	defer h.Close()
	first := func() uint64 {
		s, err := h.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s[0].First
	}
	for range cap(asked) { // until the hub has surely checked since the start
		select {
		case <-asked:
		default:
		}
	}
	<-asked
	<-asked
	if first() != 1 {
		t.Errorf("the first message is %d though nothing was committed", first())
	}
	waitFor(t, "a warning", func() bool { return fmt.Sprint(health.Problems()) != "[]" })
	needed.Store(7) // of the second file
	waitFor(t, "the first file to go", func() bool { return first() == 6 })
	needed.Store(11)
	waitFor(t, "all to go", func() bool { return first() == 11 })
	waitFor(t, "the warning to go", func() bool { return fmt.Sprint(health.Problems()) == "[]" })
	if got := hub.LastArrival(dir); got < fleetscore.Micros(now.Load())-1e6 {
		t.Errorf("once all is removed the last time is said to be %s", got)
	}
}

func TestRetentionBySize(t *testing.T) {
	t.Parallel()
	hubtest.RunRetention(t, func(t *testing.T, size int64, deps hub.Deps) hub.Hub {
		h, err := hub.Open(t.Context(), hub.Config{Dir: t.TempDir(), Partitions: 3, Retention: time.Second, Size: size}, deps)
		if err != nil {
			t.Fatal(err)
		}
		return h
	})
}

// TestShare: shares are equal, and what a part doesn't use goes to the others.
func TestShare(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sizes       []int64
		limit, want int64
	}{
		{[]int64{100}, 60, 60},
		{[]int64{100}, 100, 100},
		{[]int64{10, 10, 10}, 90, 90}, // nothing goes
		{[]int64{100, 100, 100}, 90, 30},
		{[]int64{100, 10, 100}, 90, 40},
		{[]int64{0, 0, 1000}, 90, 90},
		{[]int64{50, 20, 20}, 90, 90},
		{[]int64{51, 20, 20}, 90, 50},
	} {
		got := hub.Share(tt.sizes, tt.limit)
		sum := int64(0)
		for _, s := range tt.sizes {
			sum += min(s, got)
		}
		if got != tt.want || sum > tt.limit {
			t.Errorf("parts of %v with a limit of %d have shares of %d, %d together; want %d", tt.sizes, tt.limit, got, sum, tt.want)
		}
	}
}

func TestLastArrivalOfNoHub(t *testing.T) {
	t.Parallel()
	if got := hub.LastArrival(t.TempDir()); got != 0 {
		t.Errorf("got %s", got)
	}
}
