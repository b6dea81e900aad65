package scorer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// TestCauses: keys that end alike for the same reason are one cause, whatever
// their files and numbers are.
func TestCauses(t *testing.T) {
	t.Parallel()
	good := reference(t, "model_1_1")
	m, values, order := models{}, map[fleetscore.Key][]float64{}, []fleetscore.Key{}
	add := func(k string, n int, model func(i int) any) {
		for i := range n {
			key := fleetscore.Key(fmt.Sprintf("%s%03d", k, i))
			m[key], values[key] = model(i), []float64{10}
			order = append(order, key)
		}
	}
	add("bad", 100, func(i int) any {
		return fleetscore.Errorf(fleetscore.Invalid, "read model", fmt.Sprintf("model_%c_%d", 'a'+i%20, i), "byte %d: it is damaged", 3*i)
	})
	add("none", 30, func(int) any { return nil })
	add("empty", 20, func(int) any { return []byte{} })
	add("good", 3, func(int) any { return good })
	r, err := Score(t.Context(), Spec{Features: []string{"Value"}}, rowsOf(values, order...), nil, m)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range r.Causes {
		got = append(got, fmt.Sprintf("%d %s %s", c.Sensors, c.Outcome, strings.Join(c.Examples[:2], " ")))
	}
	want := "100 failed bad000 bad001; 30 no_model none000 none001; 20 failed empty000 empty001"
	if s := strings.Join(got, "; "); s != want || len(r.Causes[0].Examples) != maxExamples || !strings.Contains(r.Causes[0].Reason, "it is damaged") {
		t.Errorf("got %s, want %s: %+v", s, want, r.Causes)
	}
}

// TestCausesOfItems: outcomes that were read back group as when they were made.
func TestCausesOfItems(t *testing.T) {
	t.Parallel()
	var items []fleetscore.Item
	for i := range 50 {
		name := fmt.Sprintf("press%c", 'a'+i)
		items = append(items, fleetscore.Item{Key: fleetscore.Key(name), Outcome: fleetscore.Failed, Reason: fmt.Sprintf("read model model_%s: byte %d: it is damaged", name, i)},
			fleetscore.Item{Key: fleetscore.Key(name + "2"), Outcome: fleetscore.NoData, Reason: "no rows"})
	}
	items = append(items, fleetscore.Item{Key: "x", Outcome: fleetscore.NoModel, Reason: "the fleet has no model for this sensor"})
	got := CausesOf(slices.Values(items))
	if len(got) != 2 || got[0].Sensors != 50 || got[1].Outcome != fleetscore.NoModel || got[1].Sensors != 1 {
		t.Errorf("got %+v", got)
	}
}
