package compare

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

// said is one row as a side scored it.
type said struct {
	key          fleetscore.Key
	time         fleetscore.Micros
	label, score float64
}

func predictions(rows []said) *fleetscore.Predictions {
	p := &fleetscore.Predictions{}
	at := map[fleetscore.Key]uint32{}
	for _, r := range rows {
		if _, ok := at[r.key]; !ok {
			at[r.key] = uint32(len(p.Keys))
			p.Keys = append(p.Keys, r.key)
		}
		p.KeyIndex, p.Times = append(p.KeyIndex, at[r.key]), append(p.Times, r.time)
		p.Prediction, p.Score = append(p.Prediction, r.label), append(p.Score, r.score)
	}
	return p
}

// TestSensors: labels, scores, rows and outcomes of both sides, row by row.
func TestSensors(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	a := []said{{"1", 10, 0, 0.5}, {"1", 20, 1, -1}, {"1", 30, 1, 2}, {"2", 10, 3.5, nan}, {"2", 20, 4, nan}, {"3", 10, 0, inf}, {"3", 20, 0, nan}, {"4", 10, 1, 1}}
	b := []said{{"1", 30, 0, -1}, {"1", 20, 1, -1.25}, {"1", 40, 1, 9}, {"2", 10, 3, nan}, {"2", 20, 4, nan}, {"3", 10, 0, inf}, {"3", 20, 0, 7}, {"5", 10, 0, 1}, {"5", 10, 1, 3}}
	var g Group
	g.Rows(predictions(a), predictions(b))
	g.Items([]fleetscore.Item{{Key: "1", Outcome: fleetscore.Scored}, {Key: "5", Outcome: fleetscore.Failed}, {Key: "6", Outcome: fleetscore.NoData}},
		[]fleetscore.Item{{Key: "1", Outcome: fleetscore.Scored}, {Key: "1", Outcome: fleetscore.Failed}, {Key: "5", Outcome: fleetscore.Scored}, {Key: "6", Outcome: fleetscore.NoData}})
	counts := func(os ...fleetscore.Outcome) fleetscore.Counts {
		c := fleetscore.Counts{}
		for _, o := range os {
			c[o]++
		}
		return c
	}
	none := counts()
	want := []Sensor{
		{Key: "1", Rows: 2, Agree: 1, Difference: Difference{2, 3, 1.625}, A: Side{3, 1, 2, counts(fleetscore.Scored)}, B: Side{3, 1, 2, counts(fleetscore.Scored, fleetscore.Failed)}},
		{Key: "2", Rows: 2, Agree: 1, Difference: Difference{2, 0.5, 0.25}, A: Side{2, 0, 0, none}, B: Side{2, 0, 0, none}},
		{Key: "3", Rows: 2, Agree: 2, Difference: Difference{1, 0, 0}, A: Side{2, 0, 0, none}, B: Side{2, 0, 0, none}},
		{Key: "4", A: Side{1, 1, 1, none}, B: Side{0, 0, 0, none}},
		{Key: "5", A: Side{0, 0, 0, counts(fleetscore.Failed)}, B: Side{1, 1, 1, counts(fleetscore.Scored)}},
		{Key: "6", A: Side{0, 0, 0, counts(fleetscore.NoData)}, B: Side{0, 0, 0, counts(fleetscore.NoData)}},
	}
	got := slices.Collect(g.Sensors())
	if !slices.IsSortedFunc(got, func(a, b Sensor) int { return int(a.Key.Shard()) - int(b.Key.Shard()) }) {
		t.Errorf("the sensors aren't in the order of their shards: %v", got)
	}
	total := NewTotal()
	for _, s := range got {
		total.Add(s)
	}
	slices.SortFunc(got, func(a, b Sensor) int { return int(a.Key[0]) - int(b.Key[0]) })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("sensors (-want +got):\n%s", d)
	}
	wantTotal := Total{Sensors: 6, Different: 4, Rows: 6, Agree: 4, Difference: Difference{5, 3, 0.75},
		A: Side{8, 2, 3, counts(fleetscore.Scored, fleetscore.Failed, fleetscore.NoData)},
		B: Side{8, 2, 3, counts(fleetscore.Scored, fleetscore.Scored, fleetscore.Failed, fleetscore.NoData)}}
	if d := cmp.Diff(wantTotal, total, cmpopts.EquateApprox(0, 1e-12)); d != "" {
		t.Errorf("total (-want +got):\n%s", d)
	}
	slices.SortFunc(got, ByDifference)
	if order := fmt.Sprint(got[0].Key, got[1].Key, got[2].Key, got[3].Key); order != "1245" {
		t.Errorf("the most different sensors are %s, want 1, 2, 4, 5", order)
	}
	if rate := got[0].A.AnomalyRate(); rate != 2.0/3 {
		t.Errorf("anomaly rate %v", rate)
	}
}

// TestTwin: however rows are cut into pieces by time, the totals are those of a slow
// comparison of all rows at once.
func TestTwin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		side := rapid.Custom(func(t *rapid.T) said {
			return said{fleetscore.Key(fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "key"))), fleetscore.Micros(rapid.IntRange(0, 9).Draw(t, "time")),
				float64(rapid.IntRange(0, 1).Draw(t, "label")), float64(rapid.IntRange(-3, 3).Draw(t, "score"))}
		})
		a, b := rapid.SliceOfN(side, 0, 30).Draw(t, "a"), rapid.SliceOfN(side, 0, 30).Draw(t, "b")
		cut := fleetscore.Micros(rapid.IntRange(0, 10).Draw(t, "cut"))
		before := func(rows []said, yes bool) (out []said) {
			for _, r := range rows {
				if (r.time < cut) == yes {
					out = append(out, r)
				}
			}
			return out
		}
		var g Group
		g.Rows(predictions(before(a, true)), predictions(before(b, true)))
		g.Rows(predictions(before(a, false)), predictions(before(b, false)))
		if d := cmp.Diff(slow(a, b), slices.Collect(g.Sensors()), cmpopts.EquateApprox(0, 1e-12), cmpopts.SortSlices(func(a, b Sensor) bool { return a.Key < b.Key })); d != "" {
			t.Fatalf("sensors (-slow +got):\n%s", d)
		}
	})
}

// slow compares by looking each row up.
func slow(a, b []said) []Sensor {
	type cell struct {
		key  fleetscore.Key
		time fleetscore.Micros
	}
	index := func(rows []said) map[cell]said {
		out := map[cell]said{}
		for _, r := range rows {
			out[cell{r.key, r.time}] = r
		}
		return out
	}
	as, bs := index(a), index(b)
	out := map[fleetscore.Key]*Sensor{}
	of := func(k fleetscore.Key) *Sensor {
		if out[k] == nil {
			out[k] = &Sensor{Key: k, A: Side{Outcomes: fleetscore.Counts{}}, B: Side{Outcomes: fleetscore.Counts{}}}
		}
		return out[k]
	}
	for c, r := range as {
		s := of(c.key)
		s.A.Rows++
		s.A.Anomalies += int64(r.label)
		o, both := bs[c]
		if !both {
			s.A.Only++
			continue
		}
		s.Rows++
		if o.label == r.label {
			s.Agree++
		}
		d := math.Abs(o.score - r.score)
		s.Mean = (s.Mean*float64(s.Scores) + d) / float64(s.Scores+1)
		s.Scores++
		s.Max = max(s.Max, d)
	}
	for c, r := range bs {
		s := of(c.key)
		s.B.Rows++
		s.B.Anomalies += int64(r.label)
		if _, both := as[c]; !both {
			s.B.Only++
		}
	}
	var list []Sensor
	for _, s := range out {
		list = append(list, *s)
	}
	return list
}
