package clock

import (
	"fmt"
	"testing"
)

// TestSpread: the numbers are evenly distributed, also those of neighbours, and are
// the same each time.
func TestSpread(t *testing.T) {
	t.Parallel()
	const names, each, bins = 100, 100, 10
	var counts [bins]int
	for name := range names {
		for n := range each {
			x := Spread(fmt.Sprint("cpu-", name), n)
			if x < 0 || x >= 1 || x != Spread(fmt.Sprint("cpu-", name), n) {
				t.Fatalf("Spread of node %d, %d is %v", name, n, x)
			}
			counts[int(x*bins)]++
		}
	}
	for i, n := range counts {
		if fair := names * each / bins; n < fair*8/10 || n > fair*12/10 {
			t.Errorf("%d numbers lie in the tenth %d, about %d are expected", n, i, fair)
		}
	}
}
