package formula

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Finding is something that Check found.
type Finding struct {
	Severity string `json:"severity"` // "error": the formula can't work; "warning": it is most likely not meant
	Line     int    `json:"line"`     // from 1
	Column   int    `json:"column"`   // in characters, from 1
	Message  string `json:"message"`
	Hint     string `json:"hint"`
}

// The severities of findings.
const (
	Wrong   = "error"
	Warning = "warning"
)

// Check finds what is wrong with a formula, and what is allowed but most likely not
// meant, in the order of the text. It needs no samples.
func Check(src string) []Finding {
	f, problems := Parse(src)
	c := &checker{src: src, known: map[string]info{}}
	for _, p := range problems {
		c.add(Wrong, p)
	}
	if f != nil {
		c.formula(f)
	}
	slices.SortStableFunc(c.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(c.found)
}

// info is what can be said of a value without evaluating it.
type info struct {
	kind kind
	from map[string]bool // variables of the service that it was computed from; with divided before the name, from a part of it

	constant bool // its value is number, whatever the samples are
	number   float64
}

// fraction reports whether the value is a constant that can only be a share of 1.
func (i info) fraction() bool { return i.constant && i.number > 0 && i.number <= 1 }

func constant(x float64) info { return info{kind: double, constant: true, number: x} }

const divided = "part of "

type checker struct {
	src   string
	found []Finding
	known map[string]info // assigned names, targets by their present names
	set   map[string]int  // where targets and the option were assigned last
	kills bool            // an option that stops tasks may be in force
}

func (c *checker) add(severity string, e *Error) {
	c.found = append(c.found, Finding{severity, e.Line, e.Column, e.Message, e.Hint})
}

func (c *checker) warn(pos int, message, hint string, args ...any) {
	c.add(Warning, errorAt(c.src, pos, "%s", message).hint(hint, args...))
}

func (c *checker) wrong(pos int, hint, message string, args ...any) {
	c.add(Wrong, errorAt(c.src, pos, message, args...).hint("%s", hint))
}

func (c *checker) formula(f *Formula) {
	c.set, c.kills = map[string]int{}, true
	for _, s := range f.statements {
		v := c.walk(s.x, false)
		if s.name == "" {
			continue
		}
		a := assigned(s.name)
		if a == "" {
			c.known[s.name] = v
			continue
		}
		if a != s.name {
			c.warn(s.at, s.name+" is taken for "+a, "write %s: elsewhere upper and lower case matter", a)
		}
		c.target(s, a, v)
		c.known[a] = v
	}
	_, dedicated := c.set[Dedicated]
	_, low := c.set[LowPriority]
	if !dedicated && !low {
		c.warn(0, "the formula assigns no target, so it never changes the pool", "assign %s or %s", Dedicated, LowPriority)
	}
	for _, n := range []string{Dedicated, LowPriority} {
		if pos, set := c.set[n]; set && c.kills && c.onlyWaiting(n) {
			c.warn(pos, "the number of nodes follows $ActiveTasks alone, which doesn't count tasks that run",
				"a pool that shrinks would stop running tasks: use $PendingTasks, or assign %s = %s", Option, TaskCompletion)
		}
	}
}

// target judges an assignment to a read-write variable.
func (c *checker) target(s statement, name string, v info) {
	full, _ := Canonical(name)
	if want := targetKind(full); v.kind != unknown && v.kind != want {
		c.wrong(s.at, targetHint(want, v.kind), "%s can't be %s", s.name, v.kind)
	}
	if full == Option {
		if n, isName := s.x.(nameExpr); isName {
			c.kills = n.name != TaskCompletion && n.name != RetainedData
		} else {
			c.kills = false // it depends
		}
	} else {
		other := map[string]string{Dedicated: LowPriority, LowPriority: Dedicated}[full]
		if _, set := c.set[other]; v.from[divided+other] && !set {
			c.warn(s.at, "a part of "+other+" becomes "+full, "%s stays as it is here, so the result doesn't shrink step by step: divide %s", other, full)
		}
	}
	c.set[full] = s.at
}

// onlyWaiting reports whether a target follows the tasks that wait, and nothing that
// knows of those that run.
func (c *checker) onlyWaiting(target string) bool {
	from := c.known[target].from
	for old, full := range oldNames {
		if full == target {
			from = union(from, c.known[old].from)
		}
	}
	for n := range from {
		if n != "$ActiveTasks" && (strings.HasSuffix(n, "Tasks") || strings.HasSuffix(n, "Nodes")) {
			return false
		}
	}
	return from["$ActiveTasks"]
}

// walk judges an expression. Guarded ones are evaluated under a condition only.
func (c *checker) walk(x expr, guarded bool) info {
	switch x := x.(type) {
	case numberExpr:
		return constant(x.value)
	case textExpr:
		return info{kind: stringOf}
	case nameExpr:
		return c.name(x)
	case unaryExpr:
		v := c.walk(x.x, guarded)
		if v.kind == doubleVec || v.kind == stringOf || v.kind == timestamp || v.kind == timeInterval && x.op == "!" {
			c.wrong(x.pos, unaryHint(x.op, v.kind), "%s isn't defined for %s", x.op, v.kind)
			v.kind = unknown
		}
		return v
	case binaryExpr:
		return c.binary(x, guarded)
	case choiceExpr:
		if v := c.walk(x.cond, guarded); v.kind != unknown && v.kind != double {
			c.wrong(x.pos, conditionHint(v.kind), "%s can't be a condition", v.kind)
		}
		yes, no := c.walk(x.yes, true), c.walk(x.no, true)
		out := info{kind: yes.kind, from: union(yes.from, no.from)}
		if yes.kind != no.kind {
			out.kind = unknown
		}
		return out
	case callExpr:
		return c.call(x, guarded)
	case memberExpr:
		if v := c.walk(x.x, guarded); v.kind != unknown && v.kind != timestamp {
			c.wrong(x.pos, "only times have members, such as time()."+x.name, "%s has no member %s", v.kind, x.name)
		}
		return info{kind: double}
	case methodExpr:
		return c.method(x, guarded)
	}
	panic("formula: an expression of no known type")
}

func union(sets ...map[string]bool) map[string]bool {
	out := map[string]bool{}
	for _, s := range sets {
		maps.Copy(out, s)
	}
	return out
}

func (c *checker) name(x nameExpr) info {
	full, service := Canonical(x.name)
	if a := assigned(x.name); a != "" && (a == x.name || c.wrote(a)) {
		full, _ = Canonical(a)
		if full == Option {
			return info{kind: stringOf}
		}
		return info{kind: double, from: union(c.known[full].from, c.known[a].from, map[string]bool{full: true})}
	}
	if service {
		return info{kind: double, from: map[string]bool{full: true}}
	}
	if v, known := c.known[x.name]; known {
		return v
	}
	if _, constant := intervals[x.name]; constant {
		return info{kind: timeInterval}
	}
	if slices.Contains(options, x.name) {
		return info{kind: stringOf}
	}
	c.wrong(x.pos, unassignedHint(x.name, slices.Sorted(maps.Keys(c.known))), "%s has no value: nothing was assigned to it", x.name)
	return info{}
}

func (c *checker) wrote(name string) bool {
	_, known := c.known[name]
	return known
}

func (c *checker) binary(x binaryExpr, guarded bool) info {
	l := c.walk(x.l, guarded)
	r := c.walk(x.r, guarded || x.op == "&&" || x.op == "||")
	result, ok := operation(x.op, l.kind, r.kind)
	if !ok {
		c.wrong(x.pos, operationHint(x.op, l.kind, r.kind), "%s isn't defined for %s and %s", x.op, l.kind, r.kind)
		return info{}
	}
	if levels[x.op] <= levels["<"] {
		c.comparison(x, l, r)
		return info{kind: result}
	}
	if l.constant && r.constant {
		return constant(arithmetic(x.op, l.number, r.number))
	}
	out := info{kind: result, from: union(l.from, r.from)}
	if x.op == "/" && r.constant && r.number > 1 || x.op == "*" && (l.fraction() || r.fraction()) {
		delete(out.from, percentage) // a share of 1 by now, which fractions are compared with
	}
	if x.op == "/" || x.op == "*" && r.constant && r.number < 1 {
		for _, n := range []string{Dedicated, LowPriority} {
			if l.from[n] {
				out.from[divided+n] = true
			}
		}
	}
	if x.op == "+" {
		c.twice(x.pos, l.from, r.from)
	}
	return out
}

// percentage is the variable that is often taken for a share of 1.
const percentage = "$CPUPercent"

// twice warns of sums that count tasks twice.
func (c *checker) twice(pos int, a, b map[string]bool) {
	for _, part := range []string{"$RunningTasks", "$ActiveTasks"} {
		if a["$PendingTasks"] && b[part] || b["$PendingTasks"] && a[part] {
			c.warn(pos, "the tasks of "+part+" are counted twice", "$PendingTasks is $ActiveTasks + $RunningTasks already: leave %s out", part)
			return
		}
	}
}

// comparison warns of comparisons that are most likely not meant.
func (c *checker) comparison(x binaryExpr, l, r info) {
	if l.from[percentage] && r.fraction() || r.from[percentage] && l.fraction() {
		c.warn(x.pos, "$CPUPercent goes from 0 to 100", "compare it with 70 for 70 %%, not with 0.7")
	}
	if left, isBinary := x.l.(binaryExpr); isBinary && levels[x.op] == levels["<"] && levels[left.op] == levels["<"] {
		c.warn(x.pos, "a comparison is compared, which is 0 or 1", "write a < b && b < c")
	}
}

func (c *checker) call(x callExpr, guarded bool) info {
	f := functions[x.name]
	kinds := make([]kind, len(x.args))
	out := info{from: map[string]bool{}}
	for i, a := range x.args {
		v := c.walk(a, guarded)
		if !f.takes(i, v.kind) {
			c.wrong(x.open, f.usage, "argument %d of %s can't be %s", i+1, x.name, v.kind)
		}
		kinds[i] = v.kind
		maps.Copy(out.from, v.from)
	}
	if x.name == "time" && len(x.args) == 1 {
		if t, constant := x.args[0].(textExpr); constant && t.text != "" {
			if _, ok := ParseTime(t.text); !ok {
				c.wrong(x.open, timeHint, "%q isn't a time", t.text)
			}
		}
	}
	if x.name == "sum" && len(x.args) > 1 {
		c.twice(x.open, out.from, out.from)
	}
	out.kind = f.result(kinds)
	return out
}

func (c *checker) method(x methodExpr, guarded bool) info {
	metric, _ := Canonical(x.x.(nameExpr).name)
	m, kinds := methods[x.name], make([]kind, len(x.args))
	for i, a := range x.args {
		kinds[i] = c.walk(a, guarded).kind
	}
	if i, expected := m.argument(x.name, kinds); i >= 0 {
		c.wrong(x.open, "it is "+expected, "argument %d of %s can't be %s", i+1, x.name, kinds[i])
		return info{kind: m.result}
	}
	if x.name != "GetSample" {
		return info{kind: m.result}
	}
	last := len(x.args) - 1
	share, constant := x.args[last].(numberExpr)
	if byTime := kinds[0] == timestamp || kinds[0] == timeInterval; byTime && !guarded && !(kinds[last] == double && constant && share.value == 0) {
		c.warn(x.open, "a new pool has too few samples for this, and the evaluation fails until there are enough",
			"ask first: %s.GetSamplePercent(…) < %d ? max(0, %s.GetSample(1)) : avg(%s.GetSample(…)); or want 0 %% as the last argument and take len(…) into account", metric, usual, metric, metric)
	}
	return info{kind: m.result, from: map[string]bool{metric: true}}
}
