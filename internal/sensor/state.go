package sensor

import (
	"math"
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
	s.keys[fleetscore.Key([]byte(k))] = n // a copy: it must not keep the text of a whole file
	s.first, s.last, s.rows, s.perSecond = append(s.first, noTime), append(s.last, noTime), append(s.rows, 0), append(s.perSecond, 0)
	for range s.columns {
		s.values = append(s.values, fleetscore.Missing)
	}
	s.flat, s.level, s.arrived, s.skew = append(s.flat, noTime), append(s.level, fleetscore.Missing), append(s.arrived, noTime), append(s.skew, 0)
	return n, true
}

// take takes rows of a dataset, of which each sensor's are in the order of their stamps. Rows that aren't
// later than the sensor's last one were taken before, or are revised ones, and change nothing. The clocks of sensors
// with rows are right from then on, if the commit names all that aren't; else once nothing else was told for a while.
func (s *state) take(r *fleetscore.Rows, allClocks bool) {
	numbers, newest := make([]int64, len(r.Keys)), noTime+micros(memory)
	for _, t := range r.Times {
		newest = max(newest, t)
	}
	for i, k := range r.Keys {
		numbers[i] = -1
		if n, ok := s.number(k); ok {
			if numbers[i] = int64(n); allClocks || s.arrived[n] < newest-micros(memory) {
				s.arrived[n] = noTime
			}
		}
	}
	for i, t := range r.Times {
		if s.since == noTime || t < s.since {
			s.since = t
		}
		n := numbers[r.KeyIndex[i]]
		if n < 0 || t <= s.last[n] {
			continue
		}
		if s.first[n] == noTime {
			s.first[n] = t
		} else {
			s.perSecond[n] = rate(s.perSecond[n], t-s.last[n])
		}
		s.last[n] = t
		s.rows[n]++
		for c := range s.columns {
			if c < len(r.Values) {
				s.values[int(n)*len(s.columns)+c] = r.Values[c][i]
			}
		}
		if len(r.Values) > 0 && !same(r.Values[0][i], s.level[n]) {
			s.flat[n], s.level[n] = t, r.Values[0][i]
		}
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
