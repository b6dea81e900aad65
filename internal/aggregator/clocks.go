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
//
// Of a stream with very many readings it looks at some messages only, in the order of the log, so that it
// takes little time.
type clocks struct {
	newest []fleetscore.Micros // by the place of the key in the message
	off    map[fleetscore.Key]table.Clock
	left   int64             // keys that may be looked at, at the arrival below
	at     fleetscore.Micros // of the last message; 0 before the first
	some   bool              // messages weren't looked at, since the last commit
}

const (
	clockOff = fleetscore.Micros(5 * time.Second / time.Microsecond) // what the way of a reading explains
	maxOff   = 100_000                                               // sensors that are remembered until the next commit
	// keysPerSecond are looked at: in a minute, several readings of each of 100,000 sensors.
	keysPerSecond = 10_000
)

// affords reports whether a message is looked at.
func (c *clocks) affords(m hub.Message) bool {
	if c.at == 0 {
		c.left = keysPerSecond
	} else if past := m.Arrived - c.at; past > 0 {
		c.left = min(keysPerSecond, c.left+int64(min(past, fleetscore.Micros(time.Hour.Microseconds())))*keysPerSecond/1e6)
	}
	c.at = m.Arrived
	if c.left <= 0 {
		return false
	}
	c.left -= int64(len(m.Readings.Keys))
	return true
}

// note looks at the readings of a message. Where all clocks are right, no key is looked for.
func (c *clocks) note(m hub.Message) {
	if !c.affords(m) {
		c.some = true
		return
	}
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
func (c *clocks) list() table.Clocks {
	out := make([]table.Clock, 0, len(c.off))
	for _, x := range c.off {
		out = append(out, x)
	}
	size := func(x table.Clock) fleetscore.Micros { return max(x.Arrived-x.Time, x.Time-x.Arrived) }
	slices.SortFunc(out, func(a, b table.Clock) int {
		return cmp.Or(cmp.Compare(size(b), size(a)), slices.Compare(a.Key, b.Key))
	})
	return table.Clocks{Some: c.some || len(out) > table.MaxClocks || len(c.off) == maxOff, Off: out[:min(len(out), table.MaxClocks)]}
}
