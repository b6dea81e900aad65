package simulator

import (
	"cmp"
	"container/heap"
	"hash/fnv"
	"iter"
	"math"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Traffic says how the way from the devices goes wrong. Shares are from 0 to 1; the zero value is a perfect way. A
// reading has one kind of fault at most.
type Traffic struct {
	Dropped    float64       // share of the readings that are never sent
	Duplicates float64       // share of the readings that are sent twice, one after the other
	Late       float64       // share of the readings that are sent LateBy after their time
	LateBy     time.Duration // 0 means 1 min
	Skewed     float64       // share of the devices whose clocks are off, by SkewBy; their readings have no other fault
	SkewBy     time.Duration // negative if the clocks are behind; 0 means -10 min
	Burst      time.Duration // devices send what they collected for this long, all at the same time; 0 means at once
}

// Defaults fills the fields that are zero.
func (t Traffic) Defaults() Traffic {
	t.LateBy = cmp.Or(t.LateBy, time.Minute)
	t.SkewBy = cmp.Or(t.SkewBy, -10*time.Minute)
	return t
}

// Validate checks traffic whose defaults are filled in.
func (t Traffic) Validate() error {
	fail := func(format string, args ...any) *fleetscore.Error {
		return fleetscore.Errorf(fleetscore.Invalid, "simulate", "", format, args...)
	}
	for name, share := range map[string]float64{"dropped": t.Dropped, "duplicates": t.Duplicates, "late": t.Late, "skewed": t.Skewed} {
		if !(share >= 0 && share <= 1) {
			return fail("the share %v of %s isn't possible", share, name).WithHint("use 0 to 1, such as 0.01 for one in a hundred")
		}
	}
	switch {
	case t.Dropped+t.Duplicates+t.Late > 1:
		return fail("the shares of dropped, duplicates and late readings make more than 1")
	case t.LateBy < 0 || t.LateBy > 24*time.Hour:
		return fail("readings can't be late by %v", t.LateBy).WithHint("use 0 to 24h")
	case t.Burst < 0 || t.Burst > time.Hour:
		return fail("devices can't collect readings for %v", t.Burst).WithHint("use 0 to 1h")
	case t.SkewBy.Abs() > 24*time.Hour || t.SkewBy%time.Millisecond != 0:
		return fail("clocks can't be off by %v", t.SkewBy).WithHint("use whole milliseconds, at most 24h")
	}
	return nil
}

// Injected counts what a Sender handed out.
type Injected struct {
	Seed          uint64    `json:"seed"`
	From          time.Time `json:"from"`
	To            time.Time `json:"to"`
	Made          int64     `json:"made"`           // readings that the devices made
	Sent          int64     `json:"sent"`           // readings that were handed out, copies included
	Good          int64     `json:"good"`           // readings that were handed out in time and with the right time, without copies
	Dropped       int64     `json:"dropped"`        // never handed out
	Duplicates    int64     `json:"duplicates"`     // copies
	Late          int64     `json:"late"`           // handed out late
	Skewed        int64     `json:"skewed"`         // with wrong times, because their devices' clocks are off
	SkewedDevices int64     `json:"skewed_devices"` // of the fleet
	Waiting       int64     `json:"waiting"`        // not handed out yet: they are collected or late
}

// Sender hands out the readings of a fleet in the order in which they are sent. It isn't safe for concurrent use.
type Sender struct {
	fleet   *Fleet
	traffic Traffic
	end     fleetscore.Micros
	count   Injected
	waiting waiting
	order   int64
}

// NewSender begins after a time. Zero fields of traffic get their defaults. With an end, readings that would be late
// beyond it are sent in time, so that all are sent by then; a zero end is none.
func (f *Fleet) NewSender(t Traffic, from, end time.Time) (*Sender, error) {
	t = t.Defaults()
	if err := t.Validate(); err != nil {
		return nil, err
	}
	s := &Sender{fleet: f, traffic: t, end: fleetscore.Micros(math.MaxInt64), count: Injected{Seed: f.cfg.Seed, From: from.UTC(), To: from.UTC()}}
	if !end.IsZero() {
		s.end = fleetscore.MicrosOf(end)
	}
	for d := range f.cfg.Devices {
		if s.skewed(deviceName(d)) {
			s.count.SkewedDevices++
		}
	}
	return s, nil
}

// Injected is what was handed out until now.
func (s *Sender) Injected() Injected {
	out := s.count
	out.Waiting = int64(len(s.waiting))
	return out
}

// sending is a reading that waits until it is sent.
type sending struct {
	Reading
	at    fleetscore.Micros
	order int64
	fault int
}

const (
	noFault = iota
	dropped
	duplicated
	late
	skewed
)

// waiting is a heap by the time of sending.
type waiting []sending

func (w waiting) Len() int { return len(w) }
func (w waiting) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(w[i].at, w[j].at), cmp.Compare(w[i].order, w[j].order)) < 0
}
func (w waiting) Swap(i, j int) { w[i], w[j] = w[j], w[i] }
func (w *waiting) Push(x any)   { *w = append(*w, x.(sending)) }
func (w *waiting) Pop() any {
	last := (*w)[len(*w)-1]
	*w = (*w)[:len(*w)-1]
	return last
}

// Until yields what is to be sent by a time, which grows from call to call.
func (s *Sender) Until(to time.Time) iter.Seq[Reading] {
	return func(yield func(Reading) bool) {
		limit := fleetscore.MicrosOf(to)
		for r := range s.fleet.Readings(s.count.To, to) {
			s.count.Made++
			if x := s.fate(r); x.fault == dropped {
				s.count.Dropped++
			} else {
				s.order++
				x.order = s.order
				heap.Push(&s.waiting, x)
			}
			for len(s.waiting) > 0 && s.waiting[0].at < r.Time { // so that few wait
				if !s.hand(yield) {
					return
				}
			}
		}
		s.count.To = to.UTC()
		for len(s.waiting) > 0 && s.waiting[0].at <= limit {
			if !s.hand(yield) {
				return
			}
		}
	}
}

// hand hands out the first of those that wait, with its copy if it has one.
func (s *Sender) hand(yield func(Reading) bool) bool {
	x := heap.Pop(&s.waiting).(sending)
	s.count.Sent++
	switch x.fault {
	case late:
		s.count.Late++
	case skewed:
		s.count.Skewed++
	case duplicated:
		s.count.Good++
		if !yield(x.Reading) {
			return false
		}
		s.count.Sent++
		s.count.Duplicates++
	default:
		s.count.Good++
	}
	return yield(x.Reading)
}

// fate decides what becomes of a reading, by the seed, its sensor and its time alone.
func (s *Sender) fate(r Reading) sending {
	out := sending{Reading: r, at: r.Time}
	if b := s.traffic.Burst.Microseconds(); b > 0 {
		out.at = min(s.end, fleetscore.Micros(-floorDiv(-int64(r.Time), b)*b))
	}
	if s.skewed(r.Device) {
		out.fault, out.Time = skewed, r.Time+fleetscore.Micros(s.traffic.SkewBy.Microseconds())
		return out
	}
	t := &s.traffic
	after := r.Time + fleetscore.Micros(t.LateBy.Microseconds())
	switch u := unit(mix(mix(s.seedOf(r.Device), hashOf(r.Tag)), uint64(r.Time))); {
	case u < t.Dropped:
		out.fault = dropped
	case u < t.Dropped+t.Duplicates:
		out.fault = duplicated
	case u < t.Dropped+t.Duplicates+t.Late && after <= s.end:
		out.fault, out.at = late, max(out.at, after)
	}
	return out
}

// skewed reports whether a device's clock is off.
func (s *Sender) skewed(device string) bool {
	return unit(mix(s.seedOf(device), 'c')) < s.traffic.Skewed
}

func hashOf(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // it never fails
	return h.Sum64()
}

func (s *Sender) seedOf(device string) uint64 { return mix(mix(s.fleet.cfg.Seed, 't'), hashOf(device)) }
