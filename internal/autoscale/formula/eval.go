package formula

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Sample is one value of a metric.
type Sample struct {
	At    time.Time
	Value float64
}

// State is what a formula can see. Variables of the service have their present or old
// names.
type State struct {
	Now time.Time
	// Current is what variables are now: the targets, and metrics that have a newer
	// value than their newest sample. A target that is missing is 0.
	Current map[string]float64
	Option  string // the option in force; empty means requeue
	// Samples are those taken, in any order; later ones than Now aren't seen.
	Samples map[string][]Sample
	Period  time.Duration // between two samples; 0 means SamplePeriod
	Seed    uint64        // of rand(), beside Now
}

// Validate refuses names that aren't the service's, and options that don't exist.
func (s State) Validate() error {
	var all []string
	for n := range service {
		all = append(all, n)
	}
	slices.Sort(all)
	for _, n := range append(slices.Sorted(maps.Keys(s.Current)), slices.Sorted(maps.Keys(s.Samples))...) {
		if name, known := Canonical(n); !known || name == Option {
			return fleetscore.Errorf(fleetscore.Invalid, "check state", n, "there is no such variable").WithHint("the variables are %s%s", strings.Join(all, ", "), isMeant(n, all))
		}
	}
	if s.Option != "" && !slices.Contains(options, s.Option) {
		return fleetscore.Errorf(fleetscore.Invalid, "check state", s.Option, "there is no such option").WithHint("the options are %s", strings.Join(options, ", "))
	}
	if v := timeOf(s.Now); v.ticks < firstTick || v.ticks > lastTick {
		return fleetscore.Errorf(fleetscore.Invalid, "check state", s.Now.String(), "the time isn't in the years 1 to 9999")
	}
	return nil
}

// Read is one use of samples during an evaluation.
type Read struct {
	Metric string    `json:"metric"`
	Line   int       `json:"line"`
	Column int       `json:"column"`
	From   time.Time `json:"from,omitzero"` // not included; zero when samples were taken by number
	To     time.Time `json:"to"`            // included
	Got    int       `json:"samples"`       // how many there are
	Share  float64   `json:"percent"`       // of those expected in that time
}

// Result is what an evaluation asks for.
type Result struct {
	Targets   map[string]int64 // Dedicated and LowPriority, whole and not negative
	Option    string
	Variables map[string]Value // the user's, as far as the evaluation came
	Reads     []Read
	Err       *Error // why the evaluation failed; then targets and option are those before it
}

// Text is the result in the form of the service: targets, option, then, unless the
// evaluation failed, the user's variables sorted.
func (r Result) Text() string {
	parts := []string{fmt.Sprintf("%s=%d", Dedicated, r.Targets[Dedicated]), fmt.Sprintf("%s=%d", LowPriority, r.Targets[LowPriority]), Option + "=" + r.Option}
	if r.Err != nil {
		return strings.Join(parts, ";")
	}
	for _, n := range slices.Sorted(maps.Keys(r.Variables)) {
		parts = append(parts, n+"="+r.Variables[n].String())
	}
	return strings.Join(parts, ";")
}

// maxTarget bounds what a formula may ask for; what a pool gives is bounded besides.
const maxTarget = 1_000_000_000

type evaluator struct {
	src     string
	now     Value
	period  int64 // in ticks
	current map[string]float64
	option  string
	samples map[string][]Sample // as the state has them
	sorted  map[string][]Sample // those that were used: by time, until now
	values  map[string]Value    // assigned ones, by the name written
	reads   []Read
	work    int
	random  uint64
}

// stopped ends an evaluation that calls stop().
var stopped = &Error{Message: "stop"}

// Eval evaluates the formula once. A formula that fails keeps the targets that were in
// force, even if an earlier statement assigned one.
func (f *Formula) Eval(s State) Result {
	e := &evaluator{src: f.src, now: timeOf(s.Now), period: int64(s.Period) / 100, current: map[string]float64{}, option: cmp.Or(s.Option, Requeue),
		samples: map[string][]Sample{}, sorted: map[string][]Sample{}, values: map[string]Value{}, random: s.Seed ^ uint64(s.Now.UnixNano())}
	if e.period <= 0 {
		e.period = int64(SamplePeriod) / 100
	}
	for n, v := range s.Current {
		n, _ = Canonical(n)
		e.current[n] = v
	}
	for n, list := range s.Samples {
		n, _ = Canonical(n)
		e.samples[n] = list
	}
	before := Result{Targets: map[string]int64{Dedicated: cut(e.current[Dedicated]), LowPriority: cut(e.current[LowPriority])}, Option: e.option}
	err := e.run(f.statements)
	result := Result{Targets: before.Targets, Option: before.Option, Variables: map[string]Value{}, Reads: e.reads}
	for n, v := range e.values {
		if assigned(n) == "" {
			result.Variables[n] = v
		}
	}
	if err != nil {
		result.Err = err
		return result
	}
	result.Targets = map[string]int64{Dedicated: cut(e.target(Dedicated)), LowPriority: cut(e.target(LowPriority))}
	if v, set := e.values[Option]; set {
		result.Option = v.text
	}
	return result
}

// seen are a metric's samples until now, by time.
func (e *evaluator) seen(metric string) []Sample {
	if list, done := e.sorted[metric]; done {
		return list
	}
	list := e.samples[metric]
	byTime := func(a, b Sample) int { return a.At.Compare(b.At) }
	if !slices.IsSortedFunc(list, byTime) {
		list = slices.SortedStableFunc(slices.Values(list), byTime)
	}
	end := sort.Search(len(list), func(i int) bool { return timeOf(list[i].At).ticks > e.now.ticks })
	e.sorted[metric] = list[:end]
	return list[:end]
}

// cut makes a whole number of nodes of a target: 2.9 is 2, and what is negative is 0.
func cut(v float64) int64 { return int64(min(max(v, 0), maxTarget)) }

func (e *evaluator) run(statements []statement) *Error {
	for _, s := range statements {
		v, err := e.eval(s.x)
		if err == stopped {
			return nil
		}
		if err != nil {
			return err
		}
		if s.name == "" {
			continue
		}
		name := s.name
		if a := assigned(s.name); a != "" {
			name = a
			if err := e.judgeTarget(s, name, v); err != nil {
				return err
			}
		}
		e.values[name] = v
	}
	return nil
}

// judgeTarget refuses values that a read-write variable can't have.
func (e *evaluator) judgeTarget(s statement, name string, v Value) *Error {
	if want := targetKind(name); v.kind != want {
		return e.errorf(s.at, "%s can't be %s", s.name, v.kind).hint("%s", targetHint(want, v.kind))
	}
	if name == Option {
		if !slices.Contains(options, v.text) {
			return e.errorf(s.at, "%s can't be %q", s.name, v.text).hint("the options are %s%s", strings.Join(options, ", "), isMeant(v.text, options))
		}
		return nil
	}
	if !(v.num <= maxTarget) || math.IsInf(v.num, -1) {
		return e.errorf(s.at, "%s can't be %s", s.name, formatNumber(v.num)).hint("was something divided by zero? Bound the number of nodes by min(25, …)")
	}
	return nil
}

func targetKind(name string) kind {
	if name == Option {
		return stringOf
	}
	return double
}

// targetHint says what to assign instead.
func targetHint(want, got kind) string {
	switch {
	case want == stringOf:
		return "the options are " + strings.Join(options, ", ") + ", without quotes"
	case got == doubleVec:
		return "take one number of the vector: avg(…), max(…), or val(…, 0)"
	}
	return "assign a number of nodes"
}

// target is the value of a read-write number: the one assigned by the full name, else
// by the old one, else the one in force.
func (e *evaluator) target(name string) float64 {
	for _, n := range slices.Sorted(maps.Keys(oldNames)) {
		if oldNames[n] != name {
			continue
		}
		if _, set := e.values[name]; set {
			break
		}
		if v, set := e.values[n]; set {
			return v.num
		}
	}
	if v, set := e.values[name]; set {
		return v.num
	}
	return e.current[name]
}

func (e *evaluator) errorf(pos int, format string, args ...any) *Error {
	return errorAt(e.src, pos, format, args...)
}

// spend counts work, so that no formula takes long.
func (e *evaluator) spend(pos, n int) *Error {
	if e.work += n + 1; e.work > maxWork {
		return e.errorf(pos, "the evaluation goes through more than %d numbers", maxWork).hint("take fewer samples")
	}
	return nil
}

func (e *evaluator) eval(x expr) (Value, *Error) {
	switch x := x.(type) {
	case numberExpr:
		return numberOf(x.value), nil
	case textExpr:
		return Value{kind: stringOf, text: x.text}, nil
	case nameExpr:
		return e.name(x)
	case unaryExpr:
		v, err := e.eval(x.x)
		if err != nil {
			return Value{}, err
		}
		return e.unary(x, v)
	case binaryExpr:
		return e.binary(x)
	case choiceExpr:
		c, err := e.condition(x.cond, x.pos)
		if err != nil {
			return Value{}, err
		}
		if c {
			return e.eval(x.yes)
		}
		return e.eval(x.no)
	case callExpr:
		return e.call(x)
	case memberExpr:
		v, err := e.eval(x.x)
		if err != nil {
			return Value{}, err
		}
		if v.kind != timestamp {
			return Value{}, e.errorf(x.pos, "%s has no member %s", v.kind, x.name).hint("only times have members, such as time().%s", x.name)
		}
		return numberOf(member(v.time(), x.name)), nil
	case methodExpr:
		return e.method(x)
	}
	panic("formula: an expression of no known type")
}

// condition is the truth of a number: what isn't zero is true.
func (e *evaluator) condition(x expr, pos int) (bool, *Error) {
	v, err := e.eval(x)
	if err != nil {
		return false, err
	}
	if v.kind != double {
		return false, e.errorf(pos, "%s can't be a condition", v.kind).hint("%s", conditionHint(v.kind))
	}
	return v.num != 0, nil
}

func conditionHint(k kind) string {
	if k == doubleVec {
		return "compare one number of the vector, such as avg(…) > 0 or len(…) > 0"
	}
	return "compare it with something"
}

func (e *evaluator) name(x nameExpr) (Value, *Error) {
	name := x.name
	if a := assigned(name); a != "" {
		full, _ := Canonical(a)
		_, written := e.values[a]
		switch {
		case a != name && !written: // only an assignment may write it in another way
		case full == Option:
			if v, set := e.values[Option]; set {
				return v, nil
			}
			return Value{kind: stringOf, text: e.option}, nil
		default:
			return numberOf(e.target(full)), nil
		}
	}
	if v, set := e.values[name]; set {
		return v, nil
	}
	if ticks, constant := intervals[name]; constant {
		return Value{kind: timeInterval, ticks: ticks}, nil
	}
	if slices.Contains(options, name) {
		return Value{kind: stringOf, text: name}, nil
	}
	if !isMetric(name) {
		known := slices.Sorted(maps.Keys(e.values))
		return Value{}, e.errorf(x.pos, "%s has no value: nothing was assigned to it", name).hint("%s", unassignedHint(name, known))
	}
	full, _ := Canonical(name)
	if v, now := e.current[full]; now {
		return numberOf(v), nil
	}
	if list := e.seen(full); len(list) > 0 {
		return numberOf(list[len(list)-1].Value), nil
	}
	err := e.errorf(x.pos, "Insufficient data from data set: %s has no sample yet", name)
	err.Code = TooFewSamples
	return Value{}, err.hint("max(0, %s.GetSample(1)) is 0 until there is a sample", name)
}

// unassignedHint says which name may be meant.
func unassignedHint(name string, known []string) string {
	other := "$" + name
	if rest, dollar := strings.CutPrefix(name, "$"); dollar {
		other = rest
	}
	if slices.Contains(known, other) {
		return fmt.Sprintf("%s was assigned, and %s is another name: write it the same everywhere", other, name)
	}
	all := append(slices.Clone(known), Dedicated, LowPriority, Option)
	all = append(append(all, metrics...), slices.Collect(maps.Keys(intervals))...)
	all = append(all, options...)
	slices.Sort(all)
	if n := nearest(name, all); n != "" {
		return fmt.Sprintf("is %s meant? Upper and lower case matter", n)
	}
	return "assign it in a statement before this one"
}

func (e *evaluator) unary(x unaryExpr, v Value) (Value, *Error) {
	switch {
	case v.kind == double && x.op == "-":
		return numberOf(-v.num), nil
	case v.kind == double:
		return truth(v.num == 0), nil
	case v.kind == timeInterval && x.op == "-":
		return Value{kind: timeInterval, ticks: -v.ticks}, nil
	}
	return Value{}, e.errorf(x.pos, "%s isn't defined for %s", x.op, v.kind).hint("%s", unaryHint(x.op, v.kind))
}

func unaryHint(op string, k kind) string {
	if k == doubleVec && op == "-" {
		return "write vector * -1"
	}
	return conditionHint(k)
}
