package obs

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestHealth: a problem stays, with the time when it began, until its part works
// again.
func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var h Health
		start := time.Now().UTC()
		h.Warn("disk", "nearly full")
		h.Report("store", "away")
		h.Report("hub", "can't write")
		time.Sleep(time.Minute)
		h.Report("hub", "still can't write")
		h.Report("store", "")
		h.Report("ledger", "")
		want := []Problem{{Part: "hub", Problem: "still can't write", Since: start}, {Part: "disk", Problem: "nearly full", Since: start, Warning: true}}
		if d := cmp.Diff(want, h.Problems()); d != "" {
			t.Errorf("problems (-want +got):\n%s", d)
		}
		h.Report("disk", "full")
		if got := h.Problems()[0]; got.Part != "disk" || got.Warning || !got.Since.Equal(start.Add(time.Minute)) {
			t.Errorf("a warning that became a problem is %+v", got)
		}
		h.Report("hub", "")
		h.Warn("disk", "")
		if got := h.Problems(); len(got) != 0 {
			t.Errorf("everything works, but the problems are %+v", got)
		}
	})
}

// TestHealthTime: since when a part doesn't work is told by the time that the server
// acts by, not by the machine's clock, and stays the same.
func TestHealthTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		off := 24 * time.Hour
		h := Health{Now: func() time.Time { return time.Now().Add(off) }}
		want := time.Now().Add(off)
		h.Report("hub", "can't write")
		for range 2 {
			time.Sleep(time.Minute)
			if got := h.Problems()[0].Since; !got.Equal(want) {
				t.Errorf("the hub doesn't work since %s, want %s", got, want)
			}
		}
	})
}

// TestNoHealth: code that reports needn't know whether there is a Health.
func TestNoHealth(t *testing.T) {
	t.Parallel()
	var h *Health
	h.Report("hub", "can't write")
	h.Warn("disk", "nearly full")
	if got := h.Problems(); got != nil {
		t.Errorf("there is no Health, but the problems are %+v", got)
	}
}
