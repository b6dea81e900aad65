package portal

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// chart is one value over time, in the units of its picture.
type chart struct {
	Name          string
	Line          string // an SVG path, with a gap where rows are missing for longer than usual
	Anomalies     []point
	Faults        []point
	YTicks        []tick
	XTicks        []tick
	Width, Height int
	Left, Bottom  int // the edges of the area with the drawing
}

type point struct {
	X, Y  float64
	Label string
}

// tick is a place on an axis and its label.
type tick struct {
	At    float64
	Label string
}

// The chart's size in pixels, and the free space around the drawing.
const (
	chartWidth  = 1000
	chartHeight = 300
	marginLeft  = 64
	marginRight = 40
	marginTop   = 12
	marginLow   = 28
)

// byTime returns the rows' indexes in the order of time.
func byTime(rows *fleetscore.Predictions) []int {
	order := make([]int, rows.Len())
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(rows.Times[a] - rows.Times[b]) })
	return order
}

// scale maps low…high to from…to; if low equals high, the result is the middle.
type scale struct{ low, high, from, to float64 }

func (s scale) at(v float64) float64 {
	if !(s.high > s.low) {
		return (s.from + s.to) / 2
	}
	return s.from + (s.to-s.from)*(v-s.low)/(s.high-s.low)
}

// draw makes a chart of one column of the rows, which are in order of time and at
// least one.
func draw(rows *fleetscore.Predictions, order []int, column int, fault func(i int) bool) chart {
	values := rows.Values[column]
	c := chart{Name: rows.ValueNames[column], Width: chartWidth, Height: chartHeight, Left: marginLeft, Bottom: chartHeight - marginLow}
	y := scale{low: math.Inf(1), high: math.Inf(-1), from: chartHeight - marginLow - 6, to: marginTop}
	for _, i := range order {
		if v := values[i]; !math.IsNaN(v) && !math.IsInf(v, 0) {
			y.low, y.high = min(y.low, v), max(y.high, v)
		}
	}
	first, last := rows.Times[order[0]], rows.Times[order[len(order)-1]]
	x := scale{low: float64(first), high: float64(last), from: marginLeft + 6, to: chartWidth - marginRight}
	gap := usualStep(rows, order) * 5
	var line strings.Builder
	before := fleetscore.Micros(math.MinInt64)
	for _, i := range order {
		v, t := values[i], rows.Times[i]
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		p := point{X: x.at(float64(t)), Y: y.at(v), Label: t.Time().Format("15:04:05") + " " + short(v)}
		move := 'L'
		if before == math.MinInt64 || t-before > gap {
			move = 'M'
		}
		before = t
		fmt.Fprintf(&line, "%c%.1f %.1f", move, p.X, p.Y)
		if fault(i) {
			c.Faults = append(c.Faults, p)
		}
		if rows.Prediction[i] == 1 {
			c.Anomalies = append(c.Anomalies, p)
		}
	}
	c.Line = line.String()
	if y.low <= y.high {
		for _, v := range ticks(y.low, y.high) {
			c.YTicks = append(c.YTicks, tick{y.at(v), short(v)})
		}
	}
	for _, t := range timeTicks(first, last) {
		c.XTicks = append(c.XTicks, tick{x.at(float64(t)), t.Time().Format("15:04:05")})
	}
	return c
}

// usualStep returns the median time between two rows.
func usualStep(rows *fleetscore.Predictions, order []int) fleetscore.Micros {
	var steps []fleetscore.Micros
	for n := 1; n < len(order); n++ {
		steps = append(steps, rows.Times[order[n]]-rows.Times[order[n-1]])
	}
	if len(steps) == 0 {
		return 0
	}
	slices.Sort(steps)
	return steps[len(steps)/2]
}

// ticks returns a few round numbers from low to high.
func ticks(low, high float64) []float64 {
	span := high - low
	if !(span > 0) || math.IsInf(span, 0) {
		return []float64{low}
	}
	step := math.Pow(10, math.Floor(math.Log10(span/3)))
	for _, m := range []float64{1, 2, 5, 10} {
		if span/(step*m) <= 5 {
			step *= m
			break
		}
	}
	var out []float64
	for v := math.Ceil(low/step) * step; v <= high && len(out) < 12; v += step {
		out = append(out, math.Round(v/step)*step)
	}
	return out
}

// timeTicks returns a few round times from first to last.
func timeTicks(first, last fleetscore.Micros) []fleetscore.Micros {
	span := time.Duration(last-first) * time.Microsecond
	step := time.Hour
	for _, s := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
		2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute} {
		if span/s <= 8 {
			step = s
			break
		}
	}
	unit := fleetscore.Micros(step.Microseconds())
	var out []fleetscore.Micros
	for t := (first + unit - 1) / unit * unit; t <= last && len(out) < 12; t += unit {
		out = append(out, t)
	}
	if len(out) == 0 {
		out = append(out, first)
	}
	return out
}
