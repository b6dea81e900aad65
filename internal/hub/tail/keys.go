package tail

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// MaxKeys bounds the keys that Keys remembers: about 250 MB.
const MaxKeys = 2_000_000

// Key is what the messages that were read say of one key.
type Key struct {
	Key          []string            `json:"key"`
	Readings     int64               `json:"readings"`
	PerSecond    float64             `json:"per_second"` // over the arrivals that were read of its partitions
	First        time.Time           `json:"first"`      // the earliest time of a reading
	Last         time.Time           `json:"last"`       // the latest one
	FirstArrived time.Time           `json:"first_arrived"`
	LastArrived  time.Time           `json:"last_arrived"`
	Lag          float64             `json:"lag_seconds"` // arrival less time of the reading that came last
	Sources      []fleetscore.Source `json:"sources"`
}

// seen is Key while messages are read.
type seen struct {
	n                                      int64
	first, last, arrived, arrivedLast, lag fleetscore.Micros
	begun                                  fleetscore.Micros // the first message that was read of the key's partitions
	source                                 fleetscore.Source
	more                                   []fleetscore.Source // besides source
}

// Keys reads messages as Read does, without Follow and Limit, and calls fn with what they say of each key, in the order of the keys. It fails
// as exhausted if there are more than MaxKeys. It needs memory for each key, and a search for each key of each message.
func Keys(ctx context.Context, h hub.Hub, q Query, now time.Time, fn func(Key) error) error {
	var mu sync.Mutex // guards keys and begun
	keys := map[fleetscore.Key]*seen{}
	begun := map[int]fleetscore.Micros{} // by partition: the same number of messages may be of minutes, or of hours
	q.Follow, q.Limit = false, 0
	err := read(ctx, h, q, func(m hub.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := begun[m.Partition]; !ok {
			begun[m.Partition] = m.Arrived
		}
		if m.Tick || m.Readings == nil {
			return nil
		}
		places := make([]*seen, len(m.Readings.Keys))
		for i, t := range m.Readings.Times {
			k := m.Readings.KeyIndex[i]
			if q.Key != "" && m.Readings.Keys[k] != q.Key {
				continue
			}
			s := places[k]
			if s == nil {
				if s = keys[m.Readings.Keys[k]]; s == nil {
					if len(keys) == MaxKeys {
						return fleetscore.Errorf(fleetscore.Exhausted, "read keys", "", "there are more than %d", MaxKeys).WithHint("name a key or a partition, or a later time to begin")
					}
					s = &seen{first: t, last: t, arrived: m.Arrived, begun: begun[m.Partition], source: m.Source}
					keys[fleetscore.Key([]byte(m.Readings.Keys[k]))] = s // a copy: it must not keep the message
				}
				s.begun = min(s.begun, begun[m.Partition])
				if places[k] = s; s.source != m.Source && !slices.Contains(s.more, m.Source) {
					s.more = append(s.more, m.Source)
				}
			}
			s.n++
			s.first, s.last, s.arrivedLast, s.lag = min(s.first, t), max(s.last, t), m.Arrived, m.Arrived-t
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		s := keys[k]
		over := max(now.Sub(s.begun.Time()).Seconds(), 1)
		err := fn(Key{Key: k.Values(), Readings: s.n, PerSecond: float64(s.n) / over, First: s.first.Time(), Last: s.last.Time(), FirstArrived: s.arrived.Time(), LastArrived: s.arrivedLast.Time(),
			Lag: float64(s.lag) / 1e6, Sources: slices.Sorted(slices.Values(append(s.more, s.source)))})
		if err != nil {
			return err
		}
	}
	return nil
}
