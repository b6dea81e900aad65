package sensor

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

// state is what is known of the sensors of one dataset. Sensors have numbers, so that their
// figures lie in arrays: a sensor costs about BytesPerSensor with its key.
type state struct {
	version int64 // of the dataset's table, the last commit that was taken; -1 before the first
	since   fleetscore.Micros
	until   fleetscore.Micros // the dataset is complete until then
	columns []string          // the dataset's values
	keys    map[fleetscore.Key]uint32
	names   []fleetscore.Key // the keys by number
	order   []uint32         // the numbers in the order of their keys; those that came last may be missing
	left    int64

	first, last []fleetscore.Micros // stamps of rows; noTime without any
	rows        []uint32
	perSecond   []float32           // rows, see rate
	values      []float64           // of the last row, len(columns) for each sensor
	flat        []fleetscore.Micros // stamp of the first of the last rows that have the same first value
	level       []float64           // that value
	arrived     []fleetscore.Micros // of the reading that told skew; noTime while the clock is right
	skew        []fleetscore.Micros // arrival less the reading's time

	shares map[string]*shares // by pipeline
}

// shares are the anomalies of a pipeline's last job, by sensor.
type shares struct {
	version           int64 // of the table of predictions, as above
	scored, anomalies []uint32
	until             []fleetscore.Micros // stamp of the last row that was scored; noTime without any
}

const noTime = fleetscore.Micros(math.MinInt64)

func newState() *state {
	return &state{version: -1, since: noTime, until: noTime, keys: map[fleetscore.Key]uint32{}, shares: map[string]*shares{}}
}

// number is a sensor's; false if there are too many.
func (s *state) number(k fleetscore.Key) (uint32, bool) {
	n, ok := s.keys[k]
	if ok {
		return n, true
	}
	if len(s.keys) >= MaxSensors {
		s.left++
		return 0, false
	}
	n = uint32(len(s.keys))
	k = fleetscore.Key([]byte(k)) // a copy: it must not keep the text of a whole file
	s.keys[k], s.names = n, append(s.names, k)
	s.first, s.last, s.rows, s.perSecond = append(s.first, noTime), append(s.last, noTime), append(s.rows, 0), append(s.perSecond, 0)
	for range s.columns {
		s.values = append(s.values, fleetscore.Missing)
	}
	s.flat, s.level, s.arrived, s.skew = append(s.flat, noTime), append(s.level, fleetscore.Missing), append(s.arrived, noTime), append(s.skew, 0)
	return n, true
}

// arrange puts new sensors into the order. Lists show them from then on.
func (s *state) arrange(lock sync.Locker) {
	if len(s.order) == len(s.names) {
		return
	}
	order := s.ordered() // without the lock, because that takes a second for a million
	lock.Lock()
	s.order = order
	lock.Unlock()
}

// ordered is the order with the sensors that it lacks.
func (s *state) ordered() []uint32 {
	added := make([]uint32, 0, len(s.names)-len(s.order))
	for n := len(s.order); n < len(s.names); n++ {
		added = append(added, uint32(n))
	}
	slices.SortFunc(added, func(a, b uint32) int { return cmp.Compare(s.names[a], s.names[b]) })
	out, old := make([]uint32, 0, len(s.names)), s.order
	for len(old) > 0 && len(added) > 0 {
		if s.names[old[0]] < s.names[added[0]] {
			out, old = append(out, old[0]), old[1:]
		} else {
			out, added = append(out, added[0]), added[1:]
		}
	}
	return append(append(out, old...), added...)
}

// take takes rows of a dataset, of which each sensor's are in the order of their stamps. Rows that aren't
// later than the sensor's last one were taken before, or are revised ones, and change nothing. The clocks of sensors
// with rows are right from then on, if the commit names all that aren't; else once nothing else was told for a while. Those that the commit
// names, off, stay as they are until clocks takes them, so that nobody meanwhile sees them right.
// Between some rows and the next it gives the lock to those who wait for it, so that lists needn't wait for a large commit.
func (s *state) take(r *fleetscore.Rows, allClocks bool, off map[fleetscore.Key]bool, lock sync.Locker) {
	numbers, newest := make([]int64, len(r.Keys)), noTime+micros(memory)
	for i, k := range r.Keys { // without the lock, because nobody else changes the keys
		if n, ok := s.keys[k]; ok {
			numbers[i] = int64(n)
		} else {
			numbers[i] = -1
		}
	}
	for _, t := range r.Times {
		newest = max(newest, t)
	}
	turns(lock, len(r.Keys), func(i int) {
		if numbers[i] < 0 {
			if n, ok := s.number(r.Keys[i]); ok {
				numbers[i] = int64(n)
			}
		}
		if n := numbers[i]; n >= 0 && (allClocks || s.arrived[n] < newest-micros(memory)) && !off[r.Keys[i]] {
			s.arrived[n] = noTime
		}
	})
	turns(lock, len(r.Times), func(i int) {
		if n := numbers[r.KeyIndex[i]]; n >= 0 {
			s.row(uint32(n), r, i)
		}
		if t := r.Times[i]; s.since == noTime || t < s.since {
			s.since = t
		}
	})
}

// rowsInTurn is how many rows are taken until others get the lock.
const rowsInTurn = 16 << 10

// turns calls fn with the numbers below n, holding the lock for some of them at a time.
func turns(lock sync.Locker, n int, fn func(int)) {
	for i := 0; i < n; i += rowsInTurn {
		lock.Lock()
		for j := i; j < min(i+rowsInTurn, n); j++ {
			fn(j)
		}
		lock.Unlock()
	}
}

// row takes a row of a sensor.
func (s *state) row(n uint32, r *fleetscore.Rows, i int) {
	t := r.Times[i]
	if t <= s.last[n] {
		return
	}
	if s.first[n] == noTime {
		s.first[n] = t
	} else {
		s.perSecond[n] = rate(s.perSecond[n], t-s.last[n])
	}
	s.last[n] = t
	s.rows[n]++
	for c := range min(len(s.columns), len(r.Values)) {
		s.values[int(n)*len(s.columns)+c] = r.Values[c][i]
	}
	if len(r.Values) > 0 && !same(r.Values[0][i], s.level[n]) {
		s.flat[n], s.level[n] = t, r.Values[0][i]
	}
}

// same allows for the rounding of means: the mean of equal values may differ from them in the last digits.
func same(x, level float64) bool {
	return x == level || math.Abs(x-level) <= 1e-9*math.Abs(level)
}

// memory is how far back the rate of rows looks, about.
const memory = 10 * time.Minute

// rate is a mean of the rate of rows in which the latest weigh most (exponential smoothing by time).
func rate(before float32, gap fleetscore.Micros) float32 {
	seconds := float64(gap) / 1e6
	old := math.Exp(-seconds / memory.Seconds())
	return float32(old*float64(before) + (1-old)/seconds)
}

// perMinute is the rate of a sensor's rows; false while it has had one only.
func (s *state) perMinute(n uint32) (float64, bool) {
	if s.rows[n] < 2 {
		return 0, false
	}
	seconds := float64(s.last[n]-s.first[n]) / 1e6
	return 60 * float64(s.perSecond[n]) / (1 - math.Exp(-seconds/memory.Seconds())), true // the smoothing began with 0
}

// clocks takes what a commit says of clocks that are wrong.
func (s *state) clocks(list []table.Clock) {
	for _, c := range list {
		key, err := fleetscore.NewKey(c.Key...)
		if err != nil {
			continue // another program wrote it
		}
		if n, ok := s.number(key); ok {
			s.arrived[n], s.skew[n] = c.Arrived, c.Arrived-c.Time
		}
	}
}

// offOf are the keys of clocks.
func offOf(list []table.Clock) map[fleetscore.Key]bool {
	out := map[fleetscore.Key]bool{}
	for _, c := range list {
		if key, err := fleetscore.NewKey(c.Key...); err == nil {
			out[key] = true
		}
	}
	return out
}

// of are a pipeline's shares.
func (s *state) of(pipeline string) *shares {
	p := s.shares[pipeline]
	if p == nil {
		p = &shares{version: -1}
		s.shares[pipeline] = p
	}
	return p
}

// score is what a job found of one sensor.
type score struct {
	job               string
	scored, anomalies uint32
	until             fleetscore.Micros
}

// scored takes what a job found. A job over earlier rows than the last one that is known changes nothing.
func (s *state) scored(pipeline string, found map[fleetscore.Key]score) {
	p := s.of(pipeline)
	for k, x := range found {
		n, ok := s.number(k)
		if !ok {
			continue
		}
		for len(p.until) < len(s.last) {
			p.scored, p.anomalies, p.until = append(p.scored, 0), append(p.anomalies, 0), append(p.until, noTime)
		}
		if x.until >= p.until[n] {
			p.scored[n], p.anomalies[n], p.until[n] = x.scored, x.anomalies, x.until
		}
	}
}
