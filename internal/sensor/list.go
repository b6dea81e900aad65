package sensor

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Sensor is what is known of one sensor by the rows of one dataset. Times are nil where there is nothing to tell.
type Sensor struct {
	Dataset   string              `json:"dataset"`
	Key       []string            `json:"key" doc:"values of the key columns"`
	First     *time.Time          `json:"first" doc:"stamp of the first row that is known"`
	Last      *time.Time          `json:"last" doc:"stamp of the last row"`
	Silent    *float64            `json:"silent_seconds" doc:"how much older the last row is than the time until which the dataset is complete"`
	Rows      int64               `json:"rows" doc:"rows since first"`
	PerMinute *float64            `json:"rows_per_minute" doc:"over the last ten minutes before the last row, about"`
	Values    map[string]*float64 `json:"values" doc:"of the last row"`
	FlatSince *time.Time          `json:"flat_since" doc:"stamp of the first of the last rows that all have the same value in the dataset's first column"`
	Flat      float64             `json:"flat_seconds" doc:"from flat_since to last"`
	Skew      *float64            `json:"skew_seconds" doc:"arrival less the time of the newest reading, if that is more than five seconds: negative if the clock is ahead"`
	Heard     *time.Time          `json:"heard" doc:"arrival of the reading that told the skew"`
	Pipelines []Share             `json:"pipelines" doc:"anomalies"`
}

// Share is the share of anomalies among the rows of a sensor that the last job of a pipeline scored.
type Share struct {
	Pipeline  string    `json:"pipeline"`
	Scored    int64     `json:"scored" doc:"rows"`
	Anomalies int64     `json:"anomalies"`
	Share     float64   `json:"share" doc:"0 to 1"`
	Until     time.Time `json:"until" doc:"stamp of the last of these rows"`
}

// Query chooses sensors. Of Silent, Flat and Skewed, those that are above 0 must all be fulfilled.
type Query struct {
	Dataset string         // empty means all
	Key     fleetscore.Key // the only one; empty means all
	Silent  time.Duration
	Flat    time.Duration
	Skewed  time.Duration
	After   string // a cursor that List returned; empty begins with the first
	Limit   int    // the most sensors; below 1 means none, only counts
}

// Thresholds by which sensors are counted, for people and metrics.
const (
	SilentAfter = 10 * time.Minute
	FlatAfter   = time.Hour
	SkewedBy    = 30 * time.Second
)

// Counts is how many sensors there are.
type Counts struct {
	Dataset string     `json:"dataset"`
	Known   int64      `json:"known" doc:"sensors"`
	Left    int64      `json:"left_out" doc:"times that a sensor was left out, because there are too many"`
	Silent  int64      `json:"silent" doc:"for 10 minutes or longer"`
	Flat    int64      `json:"flat" doc:"for an hour or longer"`
	Skewed  int64      `json:"skewed" doc:"by 30 seconds or more"`
	Since   *time.Time `json:"since" doc:"stamp of the oldest row that these figures know of"`
	Until   *time.Time `json:"until" doc:"the dataset is complete until then"`
}

// is reports whether a sensor fulfils what a query asks for, besides its key.
func (s *state) is(n uint32, q *Query) bool {
	if q.Silent > 0 && (s.last[n] == noTime || s.until-s.last[n] < micros(q.Silent)) {
		return false
	}
	if q.Flat > 0 && (s.last[n] == noTime || math.IsNaN(s.level[n]) || s.last[n]-s.flat[n] < micros(q.Flat)) {
		return false
	}
	return q.Skewed <= 0 || s.arrived[n] != noTime && max(s.skew[n], -s.skew[n]) >= micros(q.Skewed)
}

func micros(d time.Duration) fleetscore.Micros { return fleetscore.Micros(d.Microseconds()) }

// counts counts the sensors by the usual thresholds.
func (s *state) counts(dataset string) Counts {
	out := Counts{Dataset: dataset, Known: int64(len(s.keys)), Left: s.left, Since: timeOf(s.since), Until: timeOf(s.until)}
	for n := range uint32(len(s.last)) {
		if s.is(n, &Query{Silent: SilentAfter}) {
			out.Silent++
		}
		if s.is(n, &Query{Flat: FlatAfter}) {
			out.Flat++
		}
		if s.is(n, &Query{Skewed: SkewedBy}) {
			out.Skewed++
		}
	}
	return out
}

// choose appends the numbers of the sensors behind a key that fulfil a query, in the order of their keys, until there are limit of
// them, and returns how many there are at all.
func (s *state) choose(q *Query, behind fleetscore.Key, limit int) (chosen []uint32, total int64) {
	order := s.order
	if q.Key != "" {
		n, ok := s.keys[q.Key]
		if !ok {
			return nil, 0
		}
		order = []uint32{n}
	}
	first, _ := slices.BinarySearchFunc(order, behind, func(n uint32, k fleetscore.Key) int {
		if s.names[n] <= k {
			return -1
		}
		return 1
	})
	for i, n := range order {
		if !s.is(n, q) {
			continue
		}
		if total++; i >= first && len(chosen) < limit {
			chosen = append(chosen, n)
		}
	}
	return chosen, total
}

// sensor describes one.
func (s *state) sensor(dataset string, n uint32) Sensor {
	out := Sensor{Dataset: dataset, Key: s.names[n].Values(), First: timeOf(s.first[n]), Last: timeOf(s.last[n]), Rows: int64(s.rows[n]), Values: map[string]*float64{}, Pipelines: []Share{}}
	if s.last[n] != noTime {
		silent := max(0, float64(s.until-s.last[n])/1e6)
		out.Silent = &silent
		if s.until == noTime {
			out.Silent = nil
		}
		for c, name := range s.columns {
			out.Values[name] = number(s.values[int(n)*len(s.columns)+c])
		}
	}
	if x, ok := s.perMinute(n); ok {
		out.PerMinute = number(x)
	}
	if !math.IsNaN(s.level[n]) {
		out.FlatSince, out.Flat = timeOf(s.flat[n]), float64(s.last[n]-s.flat[n])/1e6
	}
	if s.arrived[n] != noTime {
		out.Skew, out.Heard = number(float64(s.skew[n])/1e6), timeOf(s.arrived[n])
	}
	for name, p := range s.shares {
		if int(n) < len(p.until) && p.until[n] != noTime && p.scored[n] > 0 {
			out.Pipelines = append(out.Pipelines, Share{name, int64(p.scored[n]), int64(p.anomalies[n]), float64(p.anomalies[n]) / float64(p.scored[n]), p.until[n].Time()})
		}
	}
	slices.SortFunc(out.Pipelines, func(a, b Share) int { return cmp.Compare(a.Pipeline, b.Pipeline) })
	return out
}

func timeOf(t fleetscore.Micros) *time.Time {
	if t == noTime {
		return nil
	}
	at := t.Time()
	return &at
}

// number is a value as JSON can hold it.
func number(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}
