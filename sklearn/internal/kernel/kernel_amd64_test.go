package kernel

import (
	"math"
	"testing"
)

// TestTables: the assembly has the same constants as the Go code.
func TestTables(t *testing.T) {
	for i, v := range exp2Table {
		if want := math.Exp2(float64(i) / 16); math.Abs(v-want) > 0x1p-52 {
			t.Errorf("2^(%d/16) is %v, want %v", i, v, want)
		}
	}
	for i := range 65 { // the short polynomial against the long one
		r := float64(i-32) / 1024
		p := exp2Short[5]
		for k := 4; k >= 0; k-- {
			p = p*r + exp2Short[k]
		}
		if got, want := p*r+exp2Short[6], exp2(r); math.Abs(got-want) > 0x1p-52 {
			t.Errorf("2^%v is %v by the short polynomial, %v by the long one", r, got, want)
		}
	}
	for i, w := range exp2Wide {
		want := append(exp2Coef[:], 1, -1023, 0x1.8p52)[i]
		if w != [4]float64{want, want, want, want} {
			t.Errorf("%v stands for %v", w, want)
		}
	}
}
