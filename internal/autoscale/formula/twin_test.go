package formula

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// twin is a second evaluator, slow and obvious: it builds no tree, but splits the list
// of words at the operator that binds least, and goes on with the parts. It shares no
// code with the package.
type twin struct {
	s    State
	vars map[string]any // float64, []float64, string, time.Time, span
}

type span int64 // 100 ns

type piece struct {
	text string
	pos  int
}

// halt is how an evaluation of the twin ends early: with a code of the service, or
// with "stop".
type halt struct {
	code string
	pos  int
}

func fail() { panic(halt{BadFormula, 0}) }

var pieces = regexp.MustCompile(`"[^"\n]*"|[$A-Za-z_][A-Za-z0-9_]*|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|&&|\|\||[<>=!]=|[-+*/()<>=!?:;,.]`)

// twinRun returns the result's text, or the code of the error and its place.
func twinRun(src string, s State) (text string, stop halt) {
	w := &twin{s, map[string]any{}}
	code := regexp.MustCompile(`//[^\n]*`).ReplaceAllStringFunc(src, func(c string) string { return strings.Repeat(" ", len(c)) })
	var statement []piece
	defer func() {
		if p := recover(); p != nil {
			h, ours := p.(halt)
			if !ours {
				panic(p)
			}
			if stop = h; h.code == "stop" {
				text, stop = w.result(), halt{}
			}
		}
	}()
	for _, m := range append(pieces.FindAllStringIndex(code, -1), nil) {
		if m != nil && code[m[0]:m[1]] != ";" {
			statement = append(statement, piece{code[m[0]:m[1]], m[0]})
			continue
		}
		w.statement(statement)
		statement = nil
	}
	return w.result(), halt{}
}

func (w *twin) statement(p []piece) {
	if len(p) == 0 {
		return
	}
	if len(p) < 2 || p[1].text != "=" {
		w.eval(p)
		return
	}
	v := w.eval(p[2:])
	name := p[0].text
	switch name {
	case Dedicated, LowPriority, "$TargetDedicated", "$TargetLowPriority":
		if n, ok := v.(float64); !ok || math.IsNaN(n) || math.IsInf(n, 0) || n > 1e9 {
			fail()
		}
	case Option:
		if o, ok := v.(string); !ok || !slices.Contains([]string{"requeue", "terminate", "taskcompletion", "retaineddata"}, o) {
			fail()
		}
	}
	w.vars[name] = v
}

// number of nodes that is in force for a target.
func (w *twin) target(full, old string) float64 {
	for _, n := range []string{full, old} {
		if v, set := w.vars[n]; set {
			return v.(float64)
		}
	}
	return w.s.Current[full]
}

func (w *twin) result() string {
	whole := func(v float64) string { return strconv.Itoa(int(math.Max(0, math.Trunc(v)))) }
	option, set := w.vars[Option]
	if !set {
		option = "requeue"
	}
	out := fmt.Sprintf("%s=%s;%s=%s;%s=%s", Dedicated, whole(w.target(Dedicated, "$TargetDedicated")), LowPriority, whole(w.target(LowPriority, "$TargetLowPriority")), Option, option)
	var names []string
	for n := range w.vars {
		if !strings.HasPrefix(n, "$Target") && n != Option {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	for _, n := range names {
		out += ";" + n + "=" + show(w.vars[n])
	}
	return out
}

func show(v any) string {
	switch v := v.(type) {
	case float64:
		return strings.TrimPrefix(strings.Replace(strings.Replace(fmt.Sprint(json64(v)), "+Inf", "Infinity", 1), "-Inf", "-Infinity", 1), "+")
	case []float64:
		var parts []string
		for _, x := range v {
			parts = append(parts, show(x))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case time.Time:
		return v.UTC().Truncate(time.Millisecond).Format("2006-01-02T15:04:05.000") + "Z"
	case span:
		return "span" + strconv.FormatInt(int64(v), 10) // compared by its own rule
	}
	return v.(string)
}

// json64 writes a number without exponent where JavaScript does.
func json64(v float64) string {
	if v == 0 {
		return "0"
	}
	if a := math.Abs(v); a >= 1e21 || a < 1e-7 {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

var binaryOperators = [][]string{{"||"}, {"&&"}, {"==", "!="}, {"<", "<=", ">", ">="}, {"+", "-"}, {"*", "/"}}

func (w *twin) eval(p []piece) any {
	if len(p) == 0 {
		fail()
	}
	if q := find(p, true, "?"); q >= 0 {
		open, colon := 1, -1
		for i := q + 1; colon < 0; i++ {
			switch {
			case i >= len(p):
				fail()
			case p[i].text == "(":
				i = closing(p, i)
			case p[i].text == "?":
				open++
			case p[i].text == ":":
				if open--; open == 0 {
					colon = i
				}
			}
		}
		if w.truth(p[:q]) {
			return w.eval(p[q+1 : colon])
		}
		return w.eval(p[colon+1:])
	}
	for _, level := range binaryOperators {
		if i := find(p, false, level...); i > 0 {
			return w.apply(p[i].text, p[:i], p[i+1:])
		}
	}
	if p[0].text == "-" || p[0].text == "!" {
		switch v := w.eval(p[1:]).(type) {
		case float64:
			if p[0].text == "-" {
				return -v
			}
			return number01(v == 0)
		case span:
			if p[0].text == "-" {
				return -v
			}
		}
		fail()
	}
	return w.operand(p)
}

// operand evaluates what has no operator outside parentheses.
func (w *twin) operand(p []piece) any {
	last := len(p) - 1
	if p[last].text != ")" {
		if last > 0 && p[last-1].text == "." {
			return twinMember(w.eval(p[:last-1]), p[last].text)
		}
		return w.word(p[last].text)
	}
	open := 0
	for depth, i := 0, last; ; i-- {
		if p[i].text == ")" {
			depth++
		} else if p[i].text == "(" {
			if depth--; depth == 0 {
				open = i
				break
			}
		}
	}
	if open == 0 {
		return w.eval(p[1:last])
	}
	var args []any
	rest := p[open+1 : last]
	for len(rest) > 0 {
		comma := find(rest, true, ",")
		if comma < 0 {
			comma = len(rest)
		}
		args = append(args, w.eval(rest[:comma]))
		rest = rest[min(comma+1, len(rest)):]
	}
	if open >= 2 && p[open-2].text == "." {
		return w.samples(p[open-3].text, p[open-1].text, args, p[open].pos)
	}
	return w.function(p[open-1].text, args)
}

func closing(p []piece, i int) int {
	for depth := 0; i < len(p); i++ {
		if p[i].text == "(" {
			depth++
		} else if p[i].text == ")" {
			if depth--; depth == 0 {
				return i
			}
		}
	}
	fail()
	return 0
}

// find is the first or last of these operators outside parentheses that has a value
// before it; -1 if there is none.
func find(p []piece, first bool, operators ...string) (at int) {
	at = -1
	for i := 0; i < len(p); i++ {
		if p[i].text == "(" {
			i = closing(p, i)
			continue
		}
		if i == 0 || !slices.Contains(operators, p[i].text) {
			continue
		}
		before := p[i-1].text
		if c := before[len(before)-1]; c != ')' && c != '"' && c != '.' && c != '_' && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') {
			continue
		}
		if at = i; first {
			return at
		}
	}
	return at
}

func (w *twin) truth(p []piece) bool {
	v, ok := w.eval(p).(float64)
	if !ok {
		fail()
	}
	return v != 0
}

func number01(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (w *twin) apply(op string, left, right []piece) any {
	switch op {
	case "&&":
		return number01(w.truth(left) && w.truth(right))
	case "||":
		return number01(w.truth(left) || w.truth(right))
	}
	l, r := w.eval(left), w.eval(right)
	if strings.ContainsAny(op, "<>=!") {
		return number01(less(op, l, r))
	}
	switch a := l.(type) {
	case float64:
		switch b := r.(type) {
		case float64:
			return calc(op, a, b)
		case []float64:
			out := make([]float64, len(b))
			for i := range b {
				out[i] = calc(op, a, b[i])
			}
			return out
		case span:
			if op == "*" {
				return scaled(float64(b) * a)
			}
		}
	case []float64:
		out := make([]float64, len(a))
		switch b := r.(type) {
		case float64:
			for i := range a {
				out[i] = calc(op, a[i], b)
			}
			return out
		case []float64:
			if len(a) == len(b) {
				for i := range a {
					out[i] = calc(op, a[i], b[i])
				}
				return out
			}
		}
	case span:
		switch b := r.(type) {
		case float64:
			if op == "*" || op == "/" {
				return scaled(calc(op, float64(a), b))
			}
		case span:
			if op == "+" || op == "-" {
				return scaled(calc(op, float64(a), float64(b)))
			}
		case time.Time:
			if op == "+" {
				return moved(b, a)
			}
		}
	case time.Time:
		switch b := r.(type) {
		case span:
			if op == "-" {
				return moved(a, -b)
			} else if op == "+" {
				return moved(a, b)
			}
		case time.Time:
			if op == "-" {
				return span((a.Unix()-b.Unix())*1e7 + int64(a.Nanosecond()-b.Nanosecond())/100)
			}
		}
	}
	fail()
	return nil
}

func calc(op string, a, b float64) float64 {
	return map[string]float64{"+": a + b, "-": a - b, "*": a * b, "/": a / b}[op]
}

func scaled(v float64) span {
	if v = math.Round(v); math.IsNaN(v) || math.Abs(v) > 3e18 {
		fail()
	}
	return span(v)
}

func moved(t time.Time, by span) time.Time {
	t = time.Unix(t.Unix()+int64(by)/1e7, int64(t.Nanosecond())+int64(by)%1e7*100).UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		fail()
	}
	return t
}

func less(op string, l, r any) bool {
	var smaller, same bool
	switch a := l.(type) {
	case float64:
		b, ok := r.(float64)
		if !ok {
			fail()
		}
		if math.IsNaN(a) || math.IsNaN(b) {
			return op == "!="
		}
		smaller, same = a < b, a == b
	case string:
		b, ok := r.(string)
		if !ok {
			fail()
		}
		smaller, same = a < b, a == b
	case span:
		b, ok := r.(span)
		if !ok {
			fail()
		}
		smaller, same = a < b, a == b
	case time.Time:
		b, ok := r.(time.Time)
		if !ok {
			fail()
		}
		smaller, same = a.Before(b), a.Equal(b)
	default:
		fail()
	}
	return map[string]bool{"<": smaller, "<=": smaller || same, "==": same, "!=": !same, ">": !smaller && !same, ">=": !smaller}[op]
}

func twinMember(v any, name string) float64 {
	t, ok := v.(time.Time)
	if !ok {
		fail()
	}
	weekday := map[string]float64{"Monday": 1, "Tuesday": 2, "Wednesday": 3, "Thursday": 4, "Friday": 5, "Saturday": 6, "Sunday": 7}
	n := func(layout string) float64 { f, _ := strconv.ParseFloat(t.Format(layout), 64); return f }
	switch name {
	case "weekday":
		return weekday[t.Format("Monday")]
	case "year":
		return n("2006")
	case "month":
		return n("01")
	case "day":
		return n("02")
	case "hour":
		return n("15")
	case "minute":
		return n("04")
	}
	return n("05")
}

func (w *twin) word(s string) any {
	if s[0] == '"' {
		return s[1 : len(s)-1]
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return n
	}
	if v, set := w.vars[s]; set && !strings.HasPrefix(s, "$Target") {
		return v
	}
	switch s {
	case Dedicated, "$TargetDedicated":
		return w.target(Dedicated, "$TargetDedicated")
	case LowPriority, "$TargetLowPriority":
		return w.target(LowPriority, "$TargetLowPriority")
	case Option:
		return "requeue"
	case "requeue", "terminate", "taskcompletion", "retaineddata":
		return s
	}
	if unit, is := strings.CutPrefix(s, "TimeInterval_"); is {
		seconds := map[string]float64{"Zero": 0, "Second": 1, "Minute": 60, "Hour": 3600, "Day": 86400, "Week": 604800, "Year": 31536000}[unit]
		return span(seconds * 1e7)
	}
	if v, now := w.s.Current[s]; now {
		return v
	}
	if list := w.seen(s); len(list) > 0 {
		return list[len(list)-1].Value
	}
	if strings.HasPrefix(s, "$") {
		panic(halt{TooFewSamples, 0})
	}
	fail()
	return nil
}

// seen are a metric's samples until now, the oldest first.
func (w *twin) seen(metric string) (out []Sample) {
	for _, s := range w.s.Samples[metric] {
		if s.At.Compare(w.s.Now) <= 0 {
			out = append(out, s)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].At.Before(out[j].At) })
	return out
}

func (w *twin) samples(metric, method string, args []any, pos int) any {
	list := w.seen(metric)
	var values []float64
	if method == "Count" {
		return float64(len(list))
	}
	if n, ok := args[0].(float64); ok {
		if method != "GetSample" || len(args) > 1 {
			fail()
		}
		for i, s := range list {
			if float64(len(list)-i) <= math.Floor(n) {
				values = append(values, s.Value)
			}
		}
		return values
	}
	need := 70.0
	if n, ok := args[len(args)-1].(float64); ok && method == "GetSample" {
		need, args = n, args[:len(args)-1]
	}
	var ends []time.Time
	for _, a := range args {
		switch v := a.(type) {
		case time.Time:
			ends = append(ends, v)
		case span:
			ends = append(ends, moved(w.s.Now, -v))
		default:
			fail()
		}
	}
	if ends = append(ends, w.s.Now); ends[1].Before(ends[0]) {
		ends[0], ends[1] = ends[1], ends[0]
	}
	for _, s := range list {
		if s.At.After(ends[0]) && !s.At.After(ends[1]) {
			values = append(values, s.Value)
		}
	}
	expected := math.Max(1, math.Floor(ends[1].Sub(ends[0]).Seconds()/30))
	percent := math.Min(100, 100*float64(len(values))/expected)
	if method == "GetSamplePercent" {
		return percent
	}
	if !(percent >= need) {
		panic(halt{TooFewSamples, pos})
	}
	return values
}

func (w *twin) function(name string, args []any) any {
	switch name {
	case "stop":
		panic(halt{"stop", 0})
	case "time":
		return w.s.Now
	case "val", "percentile":
		i, ok := args[1].(float64)
		v := numbers(args[:1])
		if !ok {
			fail()
		}
		if name == "val" {
			if math.IsNaN(i) || math.Trunc(i) < 0 || math.Trunc(i) >= float64(len(v)) {
				fail()
			}
			return v[int(i)]
		}
		if math.IsNaN(i) || i < 0 || i > 100 || len(v) == 0 {
			fail()
		}
		sort.Float64s(v)
		at := 0
		for float64(at+1) < i/100*float64(len(v)) {
			at++
		}
		return v[at]
	case "floor", "ceil", "round", "ln", "lg", "log":
		f := map[string]func(float64) float64{"floor": math.Floor, "ceil": math.Ceil, "round": math.Round, "ln": math.Log, "lg": math.Log2, "log": math.Log10}[name]
		if x, ok := args[0].(float64); ok && len(args) == 1 {
			return f(x)
		}
		out := numbers(args)
		for i := range out {
			out[i] = f(out[i])
		}
		return out
	}
	return aggregate(name, numbers(args))
}

func aggregate(name string, v []float64) any {
	total, squares, n := 0.0, 0.0, float64(len(v))
	for _, x := range v {
		total, squares = total+x, squares+x*x
	}
	switch {
	case name == "len":
		return n
	case name == "sum":
		return total
	case name == "norm":
		return math.Sqrt(squares)
	case n == 0, name == "std" && n == 1:
		fail()
	case name == "avg":
		return total / n
	case name == "std":
		deviation := 0.0
		for _, x := range v {
			deviation += (x - total/n) * (x - total/n)
		}
		return math.Sqrt(deviation / (n - 1))
	}
	smallest, largest := math.Inf(1), math.Inf(-1)
	for _, x := range v {
		smallest, largest = math.Min(smallest, x), math.Max(largest, x)
	}
	return map[string]float64{"min": smallest, "max": largest, "range": largest - smallest}[name]
}

func numbers(args []any) (out []float64) {
	for _, a := range args {
		switch v := a.(type) {
		case float64:
			out = append(out, v)
		case []float64:
			out = append(out, v...)
		default:
			fail()
		}
	}
	return out
}

// TestTwin: the evaluator and its twin agree on random formulas with random samples:
// on the result, or that there is none, why, and where samples were missing.
func TestTwin(t *testing.T) {
	t.Parallel()
	results, errors := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		g := &generator{rt: rt, vars: map[string]kind{}}
		src, s := g.formula(), g.state()
		f, problems := Parse(src)
		if problems != nil {
			rt.Fatalf("%s\ndoesn't parse: %v", src, problems)
		}
		got := f.Eval(s)
		text, stop := twinRun(src, s)
		for n, v := range got.Variables { // intervals are compared as numbers
			if v.kind == timeInterval {
				got.Variables[n] = Value{kind: stringOf, text: "span" + strconv.FormatInt(v.ticks, 10)}
			}
		}
		switch {
		case got.Err == nil && stop.code == "":
			results++
			if got.Text() != text {
				rt.Errorf("%s\nstate %+v\n got %s\ntwin %s", src, s, got.Text(), text)
			}
		case got.Err == nil || got.Err.Code != stop.code:
			rt.Errorf("%s\nstate %+v\n got %v (%s)\ntwin %v (%s)", src, s, got.Err, got.Text(), stop, text)
		default:
			errors++
			if line, column := place(src, stop.pos); stop.pos > 0 && (line != got.Err.Line || column != got.Err.Column) {
				rt.Errorf("%s\n got %v\ntwin line %d, column %d", src, got.Err, line, column)
			}
		}
	})
	t.Logf("%d results and %d errors", results, errors)
	if results < 20 || errors < 5 {
		t.Errorf("%d results and %d errors were compared; the formulas are too alike", results, errors)
	}
}
