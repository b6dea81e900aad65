package simulator

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// FaultKind is a kind of fault of a sensor.
type FaultKind string

// The kinds of fault. A faulty sensor still sends readings.
const (
	Spike FaultKind = "spike" // peaks, a few seconds apart
	Drift FaultKind = "drift" // away from the true value, further and further
	Stuck FaultKind = "stuck" // one value all the time, often an impossible one
	Noise FaultKind = "noise" // much more noise than usual
)

var faultKinds = []FaultKind{Spike, Drift, Stuck, Noise}

// Fault is one fault of one sensor; its readings of From < time <= To are faulty.
type Fault struct {
	Device string            `json:"device"`
	Tag    string            `json:"tag"`
	Kind   FaultKind         `json:"kind"`
	From   fleetscore.Micros `json:"from"`
	To     fleetscore.Micros `json:"to"`

	size float64 // how bad, -1…-0.5 and 0.5…1
}

// Time is divided into slots of equal length. In each slot, a sensor has at most one
// fault, which is completely within the slot.
const (
	slotMicros   = int64(5 * time.Minute / time.Microsecond)
	maxFaultRate = 12 // one fault in every slot
	minFault     = int64(20 * time.Second / time.Microsecond)
	maxFault     = int64(60 * time.Second / time.Microsecond)
)

// slotFault returns the sensor's fault in a slot, if there is one.
func (f *Fleet) slotFault(s *sensor, slot int64) (Fault, bool) {
	h := mix(mix(s.seed, 'f'), uint64(slot))
	if !(unit(h) < f.cfg.FaultRate/float64(maxFaultRate)) {
		return Fault{}, false
	}
	length := minFault + int64(mix(h, 1)%uint64(maxFault-minFault))
	start := slot*slotMicros + int64(mix(h, 2)%uint64(slotMicros-length))
	size := 0.5 + 0.5*unit(mix(h, 3))
	if mix(h, 4)%2 == 0 {
		size = -size
	}
	return Fault{
		Device: s.device,
		Tag:    s.tag,
		Kind:   faultKinds[mix(h, 5)%uint64(len(faultKinds))],
		From:   fleetscore.Micros(start),
		To:     fleetscore.Micros(start + length),
		size:   size,
	}, true
}

func (f *Fleet) faultAt(s *sensor, t fleetscore.Micros) (Fault, bool) {
	// A fault may end at the last moment of its slot, but it never starts there.
	fault, ok := f.slotFault(s, floorDiv(int64(t)-1, slotMicros))
	return fault, ok && fault.From < t && t <= fault.To
}

// Faults returns the faults that overlap (from, to], in the order of their start.
func (f *Fleet) Faults(from, to time.Time) []Fault {
	after, last := fleetscore.MicrosOf(from), fleetscore.MicrosOf(to)
	var out []Fault
	for i := range f.sensors {
		for slot := floorDiv(int64(after), slotMicros); slot*slotMicros < int64(last); slot++ {
			if fault, ok := f.slotFault(&f.sensors[i], slot); ok && fault.To > after && fault.From < last {
				out = append(out, fault)
			}
		}
	}
	slices.SortFunc(out, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Tag, b.Tag))
	})
	return out
}

// apply turns a healthy value into the faulty one.
func (f *Fault) apply(s *sensor, healthy float64, t fleetscore.Micros) float64 {
	reach := s.signal.reach()
	switch f.Kind {
	case Spike:
		if mix(mix(s.seed, 's'), uint64(t))%3 > 0 {
			return healthy
		}
		return healthy + float64(12*f.size*reach)
	case Drift:
		return healthy + float64(4*f.size*reach*float64(t-f.From)/float64(f.To-f.From))
	case Stuck:
		return s.signal.base + float64(2.5*f.size*math.Abs(f.size)*reach)
	default:
		return healthy + float64(8*math.Abs(f.size)*s.signal.reach()*normal(mix(mix(s.seed, 'x'), uint64(t)))/2)
	}
}
