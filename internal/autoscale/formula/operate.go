package formula

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// operation is the kind of l op r; false if there is no such operation. What is
// unknown may be anything that makes the operation possible.
func operation(op string, l, r kind) (kind, bool) {
	if l == unknown || r == unknown {
		return operationUnknown(op, l, r)
	}
	switch op {
	case "&&", "||":
		return double, l == double && r == double
	case "<", "<=", "==", "!=", ">", ">=":
		return double, l == r && l != doubleVec
	}
	numeric := func(k kind) bool { return k == double || k == doubleVec }
	switch {
	case l == double && r == double:
		return double, true
	case numeric(l) && numeric(r):
		return doubleVec, true
	case op == "*" && (l == double && r == timeInterval || l == timeInterval && r == double):
		return timeInterval, true
	case op == "/" && l == timeInterval && r == double:
		return timeInterval, true
	case (op == "+" || op == "-") && l == timeInterval && r == timeInterval:
		return timeInterval, true
	case op == "+" && l == timeInterval && r == timestamp, (op == "+" || op == "-") && l == timestamp && r == timeInterval:
		return timestamp, true
	case op == "-" && l == timestamp && r == timestamp:
		return timeInterval, true
	}
	return unknown, false
}

func operationUnknown(op string, l, r kind) (kind, bool) {
	result, possible := unknown, 0
	for k := double; k <= timeInterval; k++ {
		a, b := l, r
		if a == unknown {
			a = k
		}
		for k2 := double; k2 <= timeInterval; k2++ {
			if r == unknown {
				b = k2
			}
			out, ok := operation(op, a, b)
			if !ok {
				continue
			}
			if possible++; possible == 1 {
				result = out
			} else if result != out {
				result = unknown
			}
		}
	}
	return result, possible > 0
}

// operationHint says what to do about an operation that isn't defined.
func operationHint(op string, l, r kind) string {
	vector := l == doubleVec || r == doubleVec
	switch {
	case (l == stringOf || r == stringOf) && l != r:
		return `texts can only be compared with texts; a time in quotes is read by time("…")`
	case vector && (op == "&&" || op == "||"), vector && levels[op] <= levels["<"]:
		return "vectors can't be compared: take one number, such as avg(…), max(…), or val(…, 0)"
	case l == timeInterval && r == timeInterval && (op == "*" || op == "/"):
		return "intervals can be added and subtracted with each other, and multiplied with or divided by a number"
	case l == timestamp && r == timestamp && op == "+":
		return "times can't be added; their difference is an interval"
	case (l == timeInterval || r == timeInterval) && (l == double || r == double):
		return "a number has no unit of time: multiply it, such as 5 * TimeInterval_Minute"
	case (l == timestamp || r == timestamp) && (l == double || r == double):
		return "use a member of the time, such as .hour, or an interval, such as 5 * TimeInterval_Minute"
	}
	return "docs/formulas.md lists what can be combined"
}

func (e *evaluator) binary(x binaryExpr) (Value, *Error) {
	if x.op == "&&" || x.op == "||" {
		l, err := e.condition(x.l, x.pos)
		if err != nil || l == (x.op == "||") {
			return truth(l), err
		}
		r, err := e.condition(x.r, x.pos)
		return truth(r), err
	}
	l, err := e.eval(x.l)
	if err != nil {
		return Value{}, err
	}
	r, err := e.eval(x.r)
	if err != nil {
		return Value{}, err
	}
	if err := e.spend(x.pos, len(l.vec)+len(r.vec)); err != nil {
		return Value{}, err
	}
	result, ok := operation(x.op, l.kind, r.kind)
	if !ok {
		return Value{}, e.errorf(x.pos, "%s isn't defined for %s and %s", x.op, l.kind, r.kind).hint("%s", operationHint(x.op, l.kind, r.kind))
	}
	switch {
	case levels[x.op] <= levels["<"]:
		return truth(compare(x.op, l, r)), nil
	case result == double:
		return numberOf(arithmetic(x.op, l.num, r.num)), nil
	case result == doubleVec:
		if l.kind == r.kind && len(l.vec) != len(r.vec) {
			return Value{}, e.errorf(x.pos, "the vectors have %d and %d elements", len(l.vec), len(r.vec)).
				hint("vectors of one length only can be combined: take one number of each, such as avg(…)")
		}
		return elementwise(x.op, l, r), nil
	}
	return e.ofTime(x, result, l, r)
}

func compare(op string, l, r Value) bool {
	c := 0
	switch {
	case l.kind == stringOf:
		c = strings.Compare(l.text, r.text)
	case l.kind != double:
		c = cmp.Compare(l.ticks, r.ticks)
	case math.IsNaN(l.num) || math.IsNaN(r.num):
		return op == "!="
	default:
		c = cmp.Compare(l.num, r.num)
	}
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case "==":
		return c == 0
	case "!=":
		return c != 0
	case ">":
		return c > 0
	}
	return c >= 0
}

func arithmetic(op string, l, r float64) float64 {
	switch op {
	case "+":
		return l + r
	case "-":
		return l - r
	case "*":
		return l * r
	}
	return l / r
}

// elementwise combines two vectors of one length, or a vector and a number.
func elementwise(op string, l, r Value) Value {
	pick := func(v Value, i int) float64 {
		if v.kind == double {
			return v.num
		}
		return v.vec[i]
	}
	out := make([]float64, max(len(l.vec), len(r.vec)))
	for i := range out {
		out[i] = arithmetic(op, pick(l, i), pick(r, i))
	}
	return Value{kind: doubleVec, vec: out}
}

// ofTime computes with times and intervals.
func (e *evaluator) ofTime(x binaryExpr, result kind, l, r Value) (Value, *Error) {
	const most = lastTick - firstTick // the longest interval
	bad := func() (Value, *Error) {
		return Value{}, e.errorf(x.pos, "the result isn't in the years 1 to 9999").hint("look at how long the interval is that is added or subtracted")
	}
	if l.kind == double {
		l, r = r, l
	}
	if r.kind == double {
		ticks := math.Round(arithmetic(x.op, float64(l.ticks), r.num))
		if !(math.Abs(ticks) <= most) {
			return bad()
		}
		return Value{kind: timeInterval, ticks: int64(ticks)}, nil
	}
	ticks := l.ticks + r.ticks // neither is beyond ±2·most, which is far from an overflow
	if x.op == "-" {
		ticks = l.ticks - r.ticks
	}
	if result == timestamp && (ticks < firstTick || ticks > lastTick) || result == timeInterval && (ticks < -most || ticks > most) {
		return bad()
	}
	return Value{kind: result, ticks: ticks}, nil
}

// arguments evaluates arguments from left to right.
func (e *evaluator) arguments(list []expr) ([]Value, []kind, *Error) {
	out, kinds := make([]Value, len(list)), make([]kind, len(list))
	for i, a := range list {
		v, err := e.eval(a)
		if err != nil {
			return nil, nil, err
		}
		out[i], kinds[i] = v, v.kind
	}
	return out, kinds, nil
}

func (e *evaluator) call(x callExpr) (Value, *Error) {
	args, kinds, err := e.arguments(x.args)
	if err != nil {
		return Value{}, err
	}
	f := functions[x.name]
	for i, k := range kinds {
		if !f.takes(i, k) {
			return Value{}, e.errorf(x.open, "argument %d of %s can't be %s", i+1, x.name, k).hint("%s", f.usage)
		}
	}
	switch f.shape {
	case endsItself:
		return Value{}, stopped
	case ofNothing:
		return numberOf(e.rand()), nil
	case ofTime:
		return e.time(x, args)
	case ofVector:
		return e.pick(x, flat(args[:1]), args[1].num)
	}
	if f.shape == eachOf && f.result(kinds) == double {
		return numberOf(each(x.name, args[0].num)), nil
	}
	v := flat(args)
	if err := e.spend(x.open, len(v)); err != nil {
		return Value{}, err
	}
	switch f.shape {
	case joined:
		return Value{kind: doubleVec, vec: v}, nil
	case eachOf:
		for i := range v {
			v[i] = each(x.name, v[i])
		}
		return Value{kind: doubleVec, vec: v}, nil
	}
	n, missing := ofAll(x.name, v)
	if missing != "" {
		return Value{}, e.errorf(x.open, "%s %s", x.name, missing).hint("%s", emptyHint(x.name))
	}
	return numberOf(n), nil
}

func emptyHint(name string) string {
	if name == "max" || name == "min" {
		return fmt.Sprintf("give it a number besides, such as %s(0, …)", name)
	}
	return "ask first how many samples there are: x.GetSamplePercent(…) >= 70 ? … : …, or len(…) > 0 ? … : …"
}

// flat joins numbers and vectors to a new vector.
func flat(args []Value) (out []float64) {
	for _, a := range args {
		if a.kind == double {
			out = append(out, a.num)
		} else {
			out = append(out, a.vec...)
		}
	}
	return out
}

// rand is the next of a series of numbers that the state's time and seed decide, so
// that an evaluation can be repeated (splitmix64).
func (e *evaluator) rand() float64 {
	e.random += 0x9e3779b97f4a7c15
	z := e.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return float64((z^z>>31)>>11) / (1 << 53)
}

const timeHint = `write it as in time("2026-11-23T10:00:00Z") or time("Mon, 23 Nov 2026 10:00:00 GMT")`

func (e *evaluator) time(x callExpr, args []Value) (Value, *Error) {
	if len(args) == 0 || args[0].text == "" {
		return e.now, nil
	}
	t, ok := ParseTime(args[0].text)
	if !ok {
		return Value{}, e.errorf(x.open, "%q isn't a time", args[0].text).
			hint(timeHint)
	}
	return timeOf(t), nil
}

// pick is val and percentile.
func (e *evaluator) pick(x callExpr, v []float64, which float64) (Value, *Error) {
	if err := e.spend(x.open, len(v)); err != nil {
		return Value{}, err
	}
	if x.name == "val" {
		if !(which > -1) || which >= float64(len(v)) {
			return Value{}, e.errorf(x.open, "the vector has %d elements, and there is no element %s", len(v), formatNumber(which)).
				hint("elements are numbered from 0; %s", emptyHint(x.name))
		}
		return numberOf(v[int(which)]), nil
	}
	if !(which >= 0 && which <= 100) {
		return Value{}, e.errorf(x.open, "%s isn't a number of per cent from 0 to 100", formatNumber(which)).hint("%s", functions[x.name].usage)
	}
	if len(v) == 0 {
		return Value{}, e.errorf(x.open, "percentile has no numbers to work on, because the vector is empty").hint("%s", emptyHint(x.name))
	}
	slices.Sort(v)
	return numberOf(v[max(0, int(math.Ceil(which/100*float64(len(v))))-1)]), nil
}
