package aggregator

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/table"
)

// TestClocks: commits name the sensors whose clocks are off, whether their readings count or not, by the newest reading of
// the last message; those whose clocks are right, or are right again, aren't named.
func TestClocks(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(1), openDir(t)
	for now := 100 * minute; now < 104*minute; now += 10 * second {
		m := map[string]fleetscore.Micros{"right": now - 4*second, "behind": now - 7*second, "late": now - 30*minute, "early": now + 20*minute, "repaired": now - 20*second}
		if now > 102*minute {
			m["repaired"] = now
		}
		put(t, h, hubtest.At(now), m)
	}
	put(t, h, hubtest.At(130*minute), map[string]fleetscore.Micros{"right": 130 * minute})
	if _, err := run(t, h, b); err != nil {
		t.Fatal(err)
	}
	d := catalog.New(b).Dataset("readings")
	snap, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for v := range snap.Version {
		c, err := d.Change(t.Context(), v+1)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, x := range c.Clocks.Off {
			names = append(names, fmt.Sprintf("%s %d", x.Key[0], (x.Arrived-x.Time)/second))
		}
		seen = append(seen, strings.Join(names, ","))
	}
	if len(seen) < 3 || seen[0] != "late 1800,early -1200,repaired 20,behind 7" || strings.Contains(seen[len(seen)-1], "repaired") {
		t.Errorf("commits say %q", seen)
	}
}

// TestManyClocks: memory and list are bounded, and the list has the largest differences.
func TestManyClocks(t *testing.T) {
	t.Parallel()
	var c clocks
	r := &fleetscore.Readings{}
	for i := range maxOff + 10 {
		r.Keys, r.KeyIndex, r.Times = append(r.Keys, fleetscore.Key(fmt.Sprint(i))), append(r.KeyIndex, uint32(i)), append(r.Times, -fleetscore.Micros(i)*second)
	}
	c.note(hub.Message{Stamp: hub.Stamp{Arrived: 10 * second}, Readings: r})
	if list := c.list(); len(c.off) != maxOff || len(list.Off) != table.MaxClocks || !list.Some || list.Off[0].Key[0] != fmt.Sprint(maxOff-1) {
		t.Errorf("%d are remembered, %d listed, the first %v", len(c.off), len(list.Off), list.Off[0])
	}
}

// TestClocksOfManyReadings: few keys are looked at in a second, however many messages arrive in it, and messages that
// arrive later are looked at again.
func TestClocksOfManyReadings(t *testing.T) {
	t.Parallel()
	var c clocks
	message := func(arrived fleetscore.Micros, name string) hub.Message {
		r := &fleetscore.Readings{}
		for i := range keysPerSecond / 4 {
			r.Keys, r.KeyIndex, r.Times = append(r.Keys, fleetscore.Key(fmt.Sprint(name, i))), append(r.KeyIndex, uint32(i)), append(r.Times, 0)
		}
		return hub.Message{Stamp: hub.Stamp{Arrived: arrived}, Readings: r}
	}
	for i := range 20 {
		c.note(message(100*second, fmt.Sprint(i, "/")))
	}
	if len(c.off) != keysPerSecond {
		t.Errorf("%d keys were looked at in a moment, want %d", len(c.off), keysPerSecond)
	}
	c.note(message(101*second, "later/"))
	if len(c.off) != keysPerSecond*5/4 {
		t.Errorf("a second later %d keys were looked at, want a quarter more than %d", len(c.off), keysPerSecond)
	}
}
