// Package compare says in what two fleets differ that scored the same rows: per sensor
// and in total, in labels, scores and outcomes.
//
// A Group takes the rows and the outcomes of some sensors piece by piece and keeps totals
// only. It reads nothing; a Group is used by one goroutine at a time.
package compare

import (
	"cmp"
	"iter"
	"maps"
	"math"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// Sensor is what both sides said about one sensor.
type Sensor struct {
	Key   fleetscore.Key `json:"key"`
	Rows  int64          `json:"rows" doc:"rows that both sides scored"`
	Agree int64          `json:"agree" doc:"of those, rows with the same label"`
	Difference
	A Side `json:"a"`
	B Side `json:"b"`
}

// Difference is how far scores are apart. Of models without decision values, such as
// regressors, the predictions are compared in their place.
type Difference struct {
	Scores int64   `json:"scores" doc:"rows whose scores were compared"`
	Max    float64 `json:"max_difference" doc:"the largest difference of two scores of a row"`
	Mean   float64 `json:"mean_difference" doc:"the mean of the differences"`
}

// Side is what one side said.
type Side struct {
	Rows      int64             `json:"rows" doc:"rows that it scored"`
	Only      int64             `json:"only" doc:"of those, rows that the other side didn't score"`
	Anomalies int64             `json:"anomalies" doc:"rows with the label 1"`
	Outcomes  fleetscore.Counts `json:"outcomes" nullable:"false" doc:"how the sensor ended, counted by interval"`
}

// AnomalyRate is the share of rows with the label 1; 0 if there are no rows.
func (s Side) AnomalyRate() float64 {
	if s.Rows == 0 {
		return 0
	}
	return float64(s.Anomalies) / float64(s.Rows)
}

// Differs reports whether a label, a score, a row or an outcome differs.
func (s Sensor) Differs() bool {
	if s.Agree != s.Rows || s.Max != 0 || s.A.Only != 0 || s.B.Only != 0 {
		return true
	}
	for _, o := range fleetscore.Outcomes {
		if s.A.Outcomes[o] != s.B.Outcomes[o] {
			return true
		}
	}
	return false
}

// ByDifference orders sensors for people: those with the most rows of another label
// first, then those with the most rows of one side only, then by the largest difference.
func ByDifference(a, b Sensor) int {
	return cmp.Or(cmp.Compare(b.Rows-b.Agree, a.Rows-a.Agree), cmp.Compare(b.A.Only+b.B.Only, a.A.Only+a.B.Only),
		cmp.Compare(b.Max, a.Max), cmp.Compare(a.Key, b.Key))
}

// Total adds sensors up.
type Total struct {
	Sensors   int64 `json:"sensors"`
	Different int64 `json:"different" doc:"sensors with a label, a score, a row or an outcome that differs"`
	Rows      int64 `json:"rows" doc:"rows that both sides scored"`
	Agree     int64 `json:"agree" doc:"of those, rows with the same label"`
	Difference
	A Side `json:"a"`
	B Side `json:"b"`
}

// NewTotal is the total of no sensors.
func NewTotal() Total {
	return Total{A: Side{Outcomes: fleetscore.Counts{}}, B: Side{Outcomes: fleetscore.Counts{}}}
}

// Add adds a sensor.
func (t *Total) Add(s Sensor) {
	t.Sensors++
	if s.Differs() {
		t.Different++
	}
	t.Rows, t.Agree = t.Rows+s.Rows, t.Agree+s.Agree
	if n := t.Scores + s.Scores; n > 0 {
		t.Mean += (s.Mean - t.Mean) * float64(s.Scores) / float64(n)
		t.Scores, t.Max = n, max(t.Max, s.Max)
	}
	for _, x := range []struct{ into, from *Side }{{&t.A, &s.A}, {&t.B, &s.B}} {
		x.into.Rows, x.into.Only, x.into.Anomalies = x.into.Rows+x.from.Rows, x.into.Only+x.from.Only, x.into.Anomalies+x.from.Anomalies
		for o, n := range x.from.Outcomes {
			x.into.Outcomes[o] += n
		}
	}
}

// Group holds the totals of some sensors. The zero value has none.
type Group struct {
	sensors map[fleetscore.Key]*running
}

// running is a sensor whose rows aren't all counted yet.
type running struct {
	Sensor
	sum   float64     // of the differences
	ended [2][]uint32 // outcomes of both sides, by their place in fleetscore.Outcomes; nil if there are none
}

func (s *running) end(side int, o fleetscore.Outcome) {
	if s.ended[side] == nil {
		s.ended[side] = make([]uint32, len(fleetscore.Outcomes))
	}
	if i := slices.Index(fleetscore.Outcomes, o); i >= 0 {
		s.ended[side][i]++
	}
}

// sensor is the sensor with all totals.
func (s *running) sensor() Sensor {
	out := s.Sensor
	if s.Scores > 0 {
		out.Mean = min(s.sum/float64(s.Scores), math.MaxFloat64)
	}
	for side, counts := range []*fleetscore.Counts{&out.A.Outcomes, &out.B.Outcomes} {
		*counts = fleetscore.Counts{}
		for i, n := range s.ended[side] {
			if n > 0 {
				(*counts)[fleetscore.Outcomes[i]] = int64(n)
			}
		}
	}
	return out
}

func (g *Group) sensor(k fleetscore.Key) *running {
	s := g.sensors[k]
	if s == nil {
		if g.sensors == nil {
			g.sensors = map[fleetscore.Key]*running{}
		}
		s = &running{Sensor: Sensor{Key: k}}
		g.sensors[k] = s
	}
	return s
}

// Items counts how sensors ended on one side.
func (g *Group) Items(a, b []fleetscore.Item) {
	for _, i := range a {
		g.sensor(i.Key).end(0, i.Outcome)
	}
	for _, i := range b {
		g.sensor(i.Key).end(1, i.Outcome)
	}
}

// Rows compares rows of both sides, matched by key and time. Each row must be in one
// call only, and both sides of a row in the same call. Of several rows of a side with the
// same key and time the last one counts.
func (g *Group) Rows(a, b *fleetscore.Predictions) {
	as, bs := sorted(a), sorted(b)
	at := make(map[fleetscore.Key]int, len(b.Keys))
	for i, k := range b.Keys {
		at[k] = i
	}
	for i, k := range a.Keys {
		var mine []uint32
		if j, ok := at[k]; ok {
			mine = bs.of(j)
			delete(at, k)
		}
		g.match(k, a, as.of(i), b, mine)
	}
	for k, j := range at {
		g.match(k, a, nil, b, bs.of(j))
	}
}

// match compares the rows of a sensor, which are in the order of their times.
func (g *Group) match(k fleetscore.Key, a *fleetscore.Predictions, as []uint32, b *fleetscore.Predictions, bs []uint32) {
	if len(as)+len(bs) == 0 {
		return
	}
	s := g.sensor(k)
	for len(as) > 0 || len(bs) > 0 {
		order := -1
		if len(as) == 0 {
			order = 1
		} else if len(bs) > 0 {
			order = cmp.Compare(a.Times[as[0]], b.Times[bs[0]])
		}
		if order <= 0 {
			s.A.count(a, as[0])
		}
		if order >= 0 {
			s.B.count(b, bs[0])
		}
		switch order {
		case 0:
			s.pair(a, as[0], b, bs[0])
			as, bs = as[1:], bs[1:]
		case -1:
			s.A.Only++
			as = as[1:]
		case 1:
			s.B.Only++
			bs = bs[1:]
		}
	}
}

func (s *Side) count(p *fleetscore.Predictions, row uint32) {
	s.Rows++
	if p.Prediction[row] == 1 {
		s.Anomalies++
	}
}

// pair compares a row that both sides scored.
func (s *running) pair(a *fleetscore.Predictions, i uint32, b *fleetscore.Predictions, j uint32) {
	s.Rows++
	la, lb := a.Prediction[i], b.Prediction[j]
	if la == lb || la != la && lb != lb {
		s.Agree++
	}
	x, y := a.Score[i], b.Score[j]
	if x != x && y != y {
		x, y = la, lb
	}
	d := math.Abs(x - y)
	if x == y {
		d = 0 // also of two infinite ones
	}
	if d != d {
		return
	}
	d = min(d, math.MaxFloat64)
	s.Scores++
	s.Max, s.sum = max(s.Max, d), s.sum+d
}

// Sensors yields the totals, by shard, then key.
func (g *Group) Sensors() iter.Seq[Sensor] {
	return func(yield func(Sensor) bool) {
		order := slices.SortedFunc(maps.Keys(g.sensors), func(a, b fleetscore.Key) int {
			return cmp.Or(cmp.Compare(a.Shard(), b.Shard()), cmp.Compare(a, b))
		})
		for _, k := range order {
			if !yield(g.sensors[k].sensor()) {
				return
			}
		}
	}
}

// byKey is rows grouped by key, each key's in the order of their times.
type byKey struct {
	rows  []uint32
	start []uint32 // per key, and one more
}

func (o byKey) of(key int) []uint32 { return o.rows[o.start[key]:o.start[key+1]] }

// sorted groups rows by key.
func sorted(p *fleetscore.Predictions) byKey {
	o := byKey{rows: make([]uint32, len(p.KeyIndex)), start: make([]uint32, len(p.Keys)+1)}
	for _, k := range p.KeyIndex {
		o.start[k+1]++
	}
	for k := range p.Keys {
		o.start[k+1] += o.start[k]
	}
	next := slices.Clone(o.start)
	for row, k := range p.KeyIndex {
		o.rows[next[k]] = uint32(row)
		next[k]++
	}
	kept := uint32(0)
	for k := range p.Keys {
		mine := o.of(k)
		o.start[k] = kept
		slices.SortStableFunc(mine, func(a, b uint32) int { return cmp.Compare(p.Times[a], p.Times[b]) })
		for i, row := range mine {
			if i+1 < len(mine) && p.Times[mine[i+1]] == p.Times[row] {
				continue // a later row of the same time counts
			}
			o.rows[kept] = row
			kept++
		}
	}
	o.start[len(p.Keys)] = kept
	return o
}
