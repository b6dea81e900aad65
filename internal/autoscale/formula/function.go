package formula

import (
	"maps"
	"math"
	"slices"
)

// shape is how a function treats its arguments.
type shape int

const (
	ofList     shape = iota // numbers and vectors, joined into one vector → a number
	eachOf                  // a number → a number; else, as ofList → a vector
	joined                  // as ofList → the joined vector
	ofVector                // a vector and a number → a number
	ofTime                  // nothing or a text → a time
	ofNothing               // → a number
	endsItself              // nothing; the evaluation ends
)

const anyNumber = 1 << 20 // of arguments

type function struct {
	shape       shape
	least, most int
	usage       string
}

// functions are the language's. vec is named by the service's documentation only where
// it says how lg, ln and log give vectors.
var functions = map[string]function{
	"avg":        {ofList, 1, anyNumber, "avg(numbers and vectors) is their mean"},
	"len":        {ofList, 0, anyNumber, "len(numbers and vectors) is how many numbers they have"},
	"max":        {ofList, 1, anyNumber, "max(numbers and vectors) is the largest number"},
	"min":        {ofList, 1, anyNumber, "min(numbers and vectors) is the smallest number"},
	"norm":       {ofList, 0, anyNumber, "norm(numbers and vectors) is the root of the sum of squares"},
	"range":      {ofList, 1, anyNumber, "range(numbers and vectors) is the largest number less the smallest"},
	"std":        {ofList, 1, anyNumber, "std(numbers and vectors) is the standard deviation of a sample"},
	"sum":        {ofList, 0, anyNumber, "sum(numbers and vectors) is their sum"},
	"percentile": {ofVector, 2, 2, "percentile(vector, 95) is the smallest element that 95 % of the elements don't exceed"},
	"val":        {ofVector, 2, 2, "val(vector, 0) is the first element"},
	"lg":         {eachOf, 1, anyNumber, "lg(x) is the logarithm to base 2"},
	"ln":         {eachOf, 1, anyNumber, "ln(x) is the natural logarithm"},
	"log":        {eachOf, 1, anyNumber, "log(x) is the logarithm to base 10"},
	"ceil":       {eachOf, 1, anyNumber, "ceil(x) rounds up"},
	"floor":      {eachOf, 1, anyNumber, "floor(x) rounds down"},
	"round":      {eachOf, 1, anyNumber, "round(x) rounds to the nearest whole number, halves away from zero"},
	"vec":        {joined, 0, anyNumber, "vec(numbers and vectors) is one vector"},
	"rand":       {ofNothing, 0, 0, "rand() is a random number between 0 and 1"},
	"stop":       {endsItself, 0, 0, "stop() ends the evaluation; what was assigned before it counts"},
	"time":       {ofTime, 0, 1, `time() is now; time("2026-11-23T10:00:00Z") is that time`},
}

var functionNames = slices.Sorted(maps.Keys(functions))

// takes reports whether argument i may be of that kind.
func (f function) takes(i int, k kind) bool {
	switch {
	case k == unknown:
		return true
	case f.shape == ofTime:
		return k == stringOf
	case f.shape == ofVector && i == 1:
		return k == double
	}
	return k == double || k == doubleVec
}

// result is the kind of the result for arguments of these kinds.
func (f function) result(args []kind) kind {
	switch {
	case f.shape == ofTime:
		return timestamp
	case f.shape == joined, f.shape == eachOf && (len(args) > 1 || args[0] == doubleVec):
		return doubleVec
	case f.shape == eachOf:
		return args[0] // a number, or not known
	case f.shape == endsItself:
		return unknown
	}
	return double
}

// each is the function of shape eachOf for one number.
func each(name string, x float64) float64 {
	switch name {
	case "lg":
		return math.Log2(x)
	case "ln":
		return math.Log(x)
	case "log":
		return math.Log10(x)
	case "ceil":
		return math.Ceil(x)
	case "floor":
		return math.Floor(x)
	}
	return math.Round(x)
}

// ofAll is the function of shape ofList. It fails with what is missing.
func ofAll(name string, v []float64) (out float64, missing string) {
	if least := map[string]int{"avg": 1, "max": 1, "min": 1, "range": 1, "std": 2}[name]; len(v) < least {
		if len(v) == 0 {
			return 0, "has no numbers to work on, because the vector is empty"
		}
		return 0, "needs at least two numbers"
	}
	switch name {
	case "len":
		return float64(len(v)), ""
	case "max":
		return extreme(v, math.Max), ""
	case "min":
		return extreme(v, math.Min), ""
	case "range":
		return extreme(v, math.Max) - extreme(v, math.Min), ""
	case "avg":
		return sum(v) / float64(len(v)), ""
	case "norm":
		squares := 0.0
		for _, x := range v {
			squares += x * x
		}
		return math.Sqrt(squares), ""
	case "std":
		mean, squares := sum(v)/float64(len(v)), 0.0
		for _, x := range v {
			squares += (x - mean) * (x - mean)
		}
		return math.Sqrt(squares / float64(len(v)-1)), ""
	}
	return sum(v), ""
}

func sum(v []float64) (out float64) {
	for _, x := range v {
		out += x
	}
	return out
}

func extreme(v []float64, of func(a, b float64) float64) float64 {
	out := v[0]
	for _, x := range v[1:] {
		out = of(out, x)
	}
	return out
}

// method is a method of a read-only variable.
type method struct {
	least, most int
	usage       string
	result      kind
}

var methods = map[string]method{
	"GetSample":        {1, 3, "GetSample(5) takes the newest 5 samples; GetSample(start[, end][, per cent]) those of a time", doubleVec},
	"GetSamplePercent": {1, 2, "GetSamplePercent(start[, end]) is how many per cent of the expected samples there are", double},
	"GetSamplePeriod":  {0, 0, "GetSamplePeriod() is the time between two samples", timeInterval},
	"Count":            {0, 0, "Count() is how many samples there are", double},
	"HistoryBeginTime": {0, 0, "HistoryBeginTime() is the time of the oldest sample", timestamp},
}

var methodNames = slices.Sorted(maps.Keys(methods))

// argument says what is wrong with the kinds of the arguments of a method: the number
// of the wrong one, and what is expected instead. Fine is -1.
func (m method) argument(name string, args []kind) (wrong int, expected string) {
	point := func(k kind) bool { return k == timestamp || k == timeInterval || k == unknown }
	amount := func(k kind) bool { return k == double || k == unknown }
	for i, k := range args {
		switch {
		case name == "GetSample" && i == 0 && len(args) == 1:
			if !point(k) && !amount(k) {
				return i, "a number of samples, an interval or a time"
			}
		case i == 0 && !point(k):
			return i, "an interval or a time, such as 5 * TimeInterval_Minute"
		case name == "GetSample" && i == 1 && len(args) == 2:
			if !point(k) && !amount(k) {
				return i, "an interval or a time, or a number of per cent"
			}
		case i == 1 && !point(k):
			return i, "an interval or a time, such as 5 * TimeInterval_Minute"
		case i == 2 && !amount(k):
			return i, "a number of per cent"
		}
	}
	return -1, ""
}
