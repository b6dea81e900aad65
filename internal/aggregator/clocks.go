package aggregator

import (
	"cmp"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/table"
)

// clocks finds the sensors whose clocks are off, since the last commit: by the newest of a sensor's readings in
// the last message that has any, because a device that sends what it collected sends old ones too.
type clocks struct {
	newest []fleetscore.Micros // by the place of the key in the message
	off    map[fleetscore.Key]table.Clock
}

const (
	clockOff = fleetscore.Micros(5 * time.Second / time.Microsecond) // what the way of a reading explains
	maxOff   = 100_000                                               // sensors that are remembered until the next commit
)

// note looks at the readings of a message. Where all clocks are right, no key is looked for.
func (c *clocks) note(m hub.Message) {
	r := m.Readings
	c.newest = append(c.newest[:0], make([]fleetscore.Micros, len(r.Keys))...)
	for i := range c.newest {
		c.newest[i] = beginning
	}
	for i, k := range r.KeyIndex {
		c.newest[k] = max(c.newest[k], r.Times[i])
	}
	for k, t := range c.newest {
		switch skew := m.Arrived - t; {
		case t == beginning:
		case max(skew, -skew) <= clockOff+m.Unsure:
			if len(c.off) > 0 {
				delete(c.off, r.Keys[k])
			}
		case len(c.off) < maxOff || c.off[r.Keys[k]].Key != nil:
			if c.off == nil {
				c.off = map[fleetscore.Key]table.Clock{}
			}
			c.off[fleetscore.Key([]byte(r.Keys[k]))] = table.Clock{Key: r.Keys[k].Values(), Time: t, Arrived: m.Arrived}
		}
	}
}

// list are the sensors whose clocks are off most, for a commit.
func (c *clocks) list() []table.Clock {
	out := make([]table.Clock, 0, len(c.off))
	for _, x := range c.off {
		out = append(out, x)
	}
	size := func(x table.Clock) fleetscore.Micros { return max(x.Arrived-x.Time, x.Time-x.Arrived) }
	slices.SortFunc(out, func(a, b table.Clock) int {
		return cmp.Or(cmp.Compare(size(b), size(a)), slices.Compare(a.Key, b.Key))
	})
	return out[:min(len(out), table.MaxClocks)]
}
