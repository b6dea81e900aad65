package stream

import (
	"math"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Policy says what happens to events that come late, early or out of order, by the letter
// of Azure Stream Analytics. Early events are always dropped.
type Policy struct {
	Late     time.Duration // how old an event may be at its arrival
	Disorder time.Duration // how far behind the latest event one may be
	Early    time.Duration // how far ahead of its arrival an event may be
	Drop     bool          // late and out-of-order events are dropped instead of adjusted
}

// Outcome is what became of an event.
type Outcome int

// The outcomes.
const (
	OnTime   Outcome = iota
	Adjusted         // System.Timestamp() is later than the event's own time
	Dropped
)

// String returns the outcome's name.
func (o Outcome) String() string { return [...]string{"on_time", "adjusted", "dropped"}[o] }

// Verdict is the outcome of an event, and its reasons.
type Verdict struct {
	Outcome    Outcome
	Late       bool
	OutOfOrder bool
	Early      bool
}

// Clock gives the events of one input their System.Timestamp(). The watermark is the
// largest time of an event that was seen, never later than the event's arrival, minus the
// tolerance for disorder; with TIMESTAMP BY … OVER each key has its own. An event that is
// dropped moves nothing.
type Clock struct {
	policy Policy
	seen   map[string]fleetscore.Micros // the largest time of each key
}

// NewClock starts before the first event.
func NewClock(p Policy) *Clock { return &Clock{p, map[string]fleetscore.Micros{}} }

// Unknown stands for an arrival that isn't known: the event can then be neither late nor early.
const Unknown = fleetscore.Micros(math.MaxInt64)

// Take gives an event its time. Events come in the order of their arrival; key is the value
// behind OVER, empty if there is none. Lateness is judged first, then the order.
func (c *Clock) Take(key string, event, arrived fleetscore.Micros) (fleetscore.Micros, Verdict) {
	v, stamp := Verdict{}, event
	if arrived != Unknown {
		if event > arrived+micros(c.policy.Early) {
			return 0, Verdict{Outcome: Dropped, Early: true}
		}
		if least := arrived - micros(c.policy.Late); stamp < least {
			if v.Late = true; c.policy.Drop {
				v.Outcome = Dropped
				return 0, v
			}
			v.Outcome, stamp = Adjusted, least
		}
	}
	if seen, any := c.seen[key]; any && stamp < seen-micros(c.policy.Disorder) {
		if v.OutOfOrder = true; c.policy.Drop {
			v.Outcome = Dropped
			return 0, v
		}
		v.Outcome, stamp = Adjusted, seen-micros(c.policy.Disorder)
	}
	if mark, any := c.seen[key]; !any || min(stamp, arrived) > mark {
		c.seen[key] = min(stamp, arrived)
	}
	return stamp, v
}

func micros(d time.Duration) fleetscore.Micros { return fleetscore.Micros(d.Microseconds()) }
