package obs

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestHealth: a problem stays, with the time it began, until its part is well.
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
			t.Errorf("all is well, yet %+v", got)
		}
	})
}

// TestNoHealth: who reports need not know whether anybody listens.
func TestNoHealth(t *testing.T) {
	t.Parallel()
	var h *Health
	h.Report("hub", "can't write")
	h.Warn("disk", "nearly full")
	if got := h.Problems(); got != nil {
		t.Errorf("nobody listens, yet %+v", got)
	}
}
