package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// sample is the result of a measurement for one unit. The unit is a model with 60 rows,
// unless a comment says otherwise.
type sample struct {
	CPU, Wall float64 // seconds
	Peak      float64 // bytes of memory; 0 if unknown
}

// contestant takes part in a duel.
type contestant struct {
	name string
	// run measures some passes. A whole process is always measured with one pass.
	run func(passes int) (sample, error)
	// whole says that a whole process is measured. passes is chosen so that a
	// measurement takes long enough; it is 1 for whole processes.
	whole  bool
	passes int
	// once says that a measurement takes minutes: it is made in the first round alone, and
	// the contestant has warmed up by itself.
	once bool
}

// duel measures all contestants in turn, alternately forwards and backwards. Before, it
// measures each once to warm up; this doesn't count. The result has a list of samples for
// each contestant.
func duel(cs []*contestant, repeats int, span time.Duration) ([][]sample, error) {
	for _, c := range cs {
		if c.once {
			continue
		}
		if err := c.warmUp(span); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	out := make([][]sample, len(cs))
	for round := range repeats {
		for i := range cs {
			if round%2 == 1 {
				i = len(cs) - 1 - i
			}
			if cs[i].once && round > 0 {
				continue
			}
			s, err := cs[i].run(cs[i].passes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", cs[i].name, err)
			}
			out[i] = append(out[i], s)
		}
	}
	return out, nil
}

func (c *contestant) warmUp(span time.Duration) error {
	c.passes = 1
	for {
		began := time.Now()
		if _, err := c.run(c.passes); err != nil {
			return err
		}
		took := time.Since(began)
		if c.whole || took >= span/2 {
			if !c.whole {
				c.passes = max(1, int(float64(c.passes)*float64(span)/float64(took)))
			}
			return nil
		}
		c.passes = max(c.passes+1, int(float64(c.passes)*min(100, float64(span)/float64(took+1))))
	}
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	n := len(v)
	if n == 0 {
		return math.NaN()
	}
	return (v[(n-1)/2] + v[n/2]) / 2
}

func pick(s []sample, what func(sample) float64) []float64 {
	var out []float64
	for _, x := range s {
		out = append(out, what(x))
	}
	return out
}

func cpuOf(s sample) float64  { return s.CPU }
func wallOf(s sample) float64 { return s.Wall }
func peakOf(s sample) float64 { return s.Peak }

// ratio is how many times longer the peer takes: the median, the smallest and the largest
// value of the pairs, which are as many as there are samples of both.
type ratio struct{ Median, Low, High float64 }

func ratioOf(ours, peer []sample, what func(sample) float64) ratio {
	var r []float64
	for i := range min(len(ours), len(peer)) {
		r = append(r, what(peer[i])/what(ours[i]))
	}
	return ratio{median(r), slices.Min(r), slices.Max(r)}
}

func (r ratio) String() string {
	return fmt.Sprintf("%s× (%s–%s)", short(r.Median), short(r.Low), short(r.High))
}

// short writes a number with three significant digits.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return thousands(int64(math.Round(v)))
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// took writes a duration in seconds with a fitting unit.
func took(s float64) string {
	switch {
	case s >= 1:
		return short(s) + " s"
	case s >= 1e-3:
		return short(s*1e3) + " ms"
	}
	return short(s*1e6) + " µs"
}
