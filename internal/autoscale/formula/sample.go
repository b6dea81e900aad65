package formula

import (
	"math"
	"sort"
)

// usual is how many per cent of the expected samples GetSample wants for a time if it
// isn't told; the service doesn't document this number, but its errors name it.
const usual = 70

func (e *evaluator) method(x methodExpr) (Value, *Error) {
	metric, _ := Canonical(x.x.(nameExpr).name)
	args, kinds, err := e.arguments(x.args)
	if err != nil {
		return Value{}, err
	}
	if i, expected := methods[x.name].argument(x.name, kinds); i >= 0 {
		return Value{}, e.errorf(x.open, "argument %d of %s can't be %s", i+1, x.name, kinds[i]).hint("it is %s", expected)
	}
	list := e.seen(metric)
	switch x.name {
	case "GetSamplePeriod":
		return Value{kind: timeInterval, ticks: e.period}, nil
	case "Count":
		return numberOf(float64(len(list))), nil
	case "HistoryBeginTime":
		if len(list) == 0 {
			return Value{}, e.tooFew(x, metric, "has no sample yet")
		}
		return timeOf(list[0].At), nil
	}
	if kinds[0] == double {
		return e.newest(x, metric, args[0].num)
	}
	wanted := float64(usual)
	if n := len(args) - 1; n > 0 && kinds[n] == double {
		wanted, args = args[n].num, args[:n]
	}
	from, to := e.span(args)
	// A sample at the start of the time doesn't belong to it, so that a time of n
	// periods has n samples wherever it begins.
	first := sort.Search(len(list), func(i int) bool { return timeOf(list[i].At).ticks > from })
	end := sort.Search(len(list), func(i int) bool { return timeOf(list[i].At).ticks > to })
	share := min(100, 100*float64(end-first)/float64(max(1, (to-from)/e.period)))
	e.note(x, Read{Metric: metric, From: Value{ticks: from}.time(), To: Value{ticks: to}.time(), Got: end - first, Share: share})
	if x.name == "GetSamplePercent" {
		return numberOf(share), nil
	}
	if !(share >= wanted) {
		return Value{}, e.tooFew(x, metric, "wanted "+formatNumber(wanted)+"%, received "+formatNumber(math.Floor(share))+"%")
	}
	return e.vector(x, list[first:end])
}

// newest is the newest samples, oldest first, however old they are.
func (e *evaluator) newest(x methodExpr, metric string, n float64) (Value, *Error) {
	list := e.seen(metric)
	if !(n > 0) { // also what is no number
		n = 0
	}
	if n < float64(len(list)) {
		list = list[len(list)-int(n):]
	}
	e.note(x, Read{Metric: metric, To: e.now.time(), Got: len(list), Share: 100 * float64(len(list)) / max(1, math.Floor(n))})
	return e.vector(x, list)
}

func (e *evaluator) vector(x methodExpr, list []Sample) (Value, *Error) {
	if err := e.spend(x.open, len(list)); err != nil {
		return Value{}, err
	}
	out := make([]float64, len(list))
	for i, s := range list {
		out[i] = s.Value
	}
	return Value{kind: doubleVec, vec: out}, nil
}

// span is the time between two points, given in either order; a single point goes on
// until now. An interval says how long before now its point is.
func (e *evaluator) span(points []Value) (from, to int64) {
	at := func(v Value) int64 {
		if v.kind == timeInterval {
			return min(max(e.now.ticks-v.ticks, firstTick), lastTick)
		}
		return v.ticks
	}
	from, to = at(points[0]), e.now.ticks
	if len(points) > 1 {
		to = at(points[1])
	}
	return min(from, to), max(from, to)
}

func (e *evaluator) note(x methodExpr, r Read) {
	r.Line, r.Column = place(e.src, x.open)
	e.reads = append(e.reads, r)
}

func (e *evaluator) tooFew(x methodExpr, metric, what string) *Error {
	err := e.errorf(x.open, "Insufficient data from data set: %s %s", metric, what)
	err.Code = TooFewSamples
	return err.hint("ask first, and use the newest sample else: %s.GetSamplePercent(…) < %d ? max(0, %s.GetSample(1)) : avg(%s.GetSample(…)); "+
		"a percentage as last argument changes how many are wanted", metric, usual, metric, metric)
}
