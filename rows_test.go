package fleetscore

import (
	"testing"

	"pgregory.net/rapid"
)

// TestPartsByTime: the parts hold every row once, in the order of times. Rows with
// equal times keep their order and are in one part.
func TestPartsByTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		r := &Rows{Keys: []Key{"a", "b"}, ValueNames: []string{"row"}, Values: make([][]float64, 1)}
		for i := range rapid.IntRange(0, 30).Draw(rt, "rows") {
			r.Times = append(r.Times, Micros(rapid.IntRange(0, 9).Draw(rt, "time")))
			r.KeyIndex = append(r.KeyIndex, uint32(i%2))
			r.Values[0] = append(r.Values[0], float64(i))
		}
		n := rapid.IntRange(1, 40).Draw(rt, "n")
		seen, last, place := 0, Micros(-1), -1.0
		for p := range r.PartsByTime(n) {
			if r.Len() > n && p.Len() > 0 && p.Times[0] == last {
				rt.Errorf("time %d is in two parts", last)
			}
			for i, at := range p.Times {
				row := p.Values[0][i]
				if r.Len() > n && (at < last || at == last && row < place) {
					rt.Errorf("row %v at %d follows %v at %d", row, at, place, last)
				}
				if r.Times[int(row)] != at || r.KeyIndex[int(row)] != p.KeyIndex[i] {
					rt.Errorf("row %v is mixed up", row)
				}
				last, place = at, row
				seen++
			}
		}
		if seen != r.Len() {
			rt.Errorf("%d of %d rows are in parts", seen, r.Len())
		}
	})
}
