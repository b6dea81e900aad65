package aggregator

import (
	"fmt"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

// TestAdjust: with late: adjust, a reading that is too old at its arrival counts at the earliest
// time that wouldn't be, also in a query of the simple form. A device that sends a reading again,
// also after a restart of the query, doesn't make it count twice.
func TestAdjust(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.Late, c.Query.LateWithin = fleetscore.LateAdjust, fleetscore.Duration(4*time.Second)
	h, b := hubtest.New(1), openDir(t)
	begin(t, h)
	late := sent{"d0", 90 * minute, 100*minute + 1e6, 5} // counts at 99:57
	send(t, h, sent{"d0", 100*minute - 4e6, 100 * minute, 1}, late, sent{"d0", 100*minute + 2e6, 100*minute + 2e6, 2})
	tick(t, h, 101*minute)
	if a, err := runConfig(t, c, h, b); err != nil || a.Status().Partitions[0].Adjusted != 1 {
		t.Fatalf("%v, %+v", err, a.Status().Partitions)
	}
	late.arrived = 102 * minute
	old := sent{"d0", 101*minute + 30e6, 102*minute + 2e6, 9} // counts at 101:58
	send(t, h, late, late, sent{"d0", 102 * minute, 102*minute + 1e6, 7}, old, old)
	tick(t, h, 110*minute)
	a, err := runConfig(t, c, h, b)
	if s := a.Status().Partitions[0]; err != nil || s.Adjusted != 1 || s.Repeats != 3 || s.Late != 0 {
		t.Errorf("%v: %d adjusted, %d repeats, %d late; want 1, 3 and 0", err, s.Adjusted, s.Repeats, s.Late)
	}
	rows, _ := rowsIn(t, b)
	want := map[string]string{fmt.Sprint("d0 ", 100*minute): "6 2", fmt.Sprint("d0 ", 100*minute+5e6): "2 1", fmt.Sprint("d0 ", 102*minute): "16 2"}
	if d := gocmp.Diff(want, rows); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}
