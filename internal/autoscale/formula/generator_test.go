package formula

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"
)

// generator makes random formulas that parse; most are of the right types.
type generator struct {
	rt   *rapid.T
	vars map[string]kind
}

// n is a number from 0 to most, each as likely as the others; rapid itself prefers small
// ones. It shrinks to 0.
func (g *generator) n(most int) int {
	return int(rapid.Uint64().Draw(g.rt, "n") * 0x9e3779b97f4a7c15 >> 33 % uint64(most+1))
}

// seldom is true once in so many times.
func (g *generator) seldom(in int) bool { return g.n(in-1) == 1 }

func (g *generator) one(of ...string) string { return of[g.n(len(of)-1)] }

func (g *generator) formula() string {
	var b strings.Builder
	for range 1 + g.n(3) {
		k := []kind{double, double, double, doubleVec, timestamp, timeInterval}[g.n(5)]
		name := g.one("a", "$b", "c1", "$round", "now")
		if g.n(2) == 0 {
			k, name = double, g.one(Dedicated, LowPriority, "$TargetDedicated", "$TargetLowPriority")
		} else if g.n(9) == 0 {
			fmt.Fprintf(&b, "%s = %s ? %s : %s;", Option, g.expr(double, 2), g.one(options...), g.one(options...))
		}
		fmt.Fprintf(&b, "%s =%s%s%s", name, g.one(" ", "\n  ", "// = ; \"\r\n"), g.expr(k, 3), g.one(";", " ;\n", ";;"))
		if !strings.HasPrefix(name, "$Target") {
			g.vars[name] = k
		}
	}
	return b.String()
}

// expr is an expression of that kind; seldom of another.
func (g *generator) expr(k kind, depth int) string {
	if g.seldom(150) {
		k = []kind{double, doubleVec, stringOf, timestamp, timeInterval}[g.n(4)]
	}
	if depth > 0 && g.n(7) == 0 {
		return fmt.Sprintf("%s ? %s : %s", g.atom(double, depth-1), g.expr(k, depth-1), g.expr(k, depth-1))
	}
	if depth <= 0 || g.n(2) == 0 {
		return g.atom(k, depth)
	}
	l, r, op := k, k, ""
	switch k {
	case double:
		op = g.one("+", "-", "*", "/", "<", "<=", "==", ">=", ">", "!=", "&&", "||")
		if levels[op] == levels["<"] {
			l = []kind{double, double, stringOf, timestamp, timeInterval}[g.n(4)]
			r = l
		}
	case doubleVec:
		op = g.one("+", "-", "*", "/")
		l, r = []kind{double, doubleVec, doubleVec}[g.n(2)], doubleVec
	case timestamp:
		op, r = g.one("+", "-"), timeInterval
		if op == "+" && g.n(2) == 0 {
			l, r = r, l
		}
	case timeInterval:
		switch op = g.one("+", "-", "*", "/", "times", "difference"); op {
		case "*", "/":
			r = double
		case "times":
			op, l = "*", double
		case "difference":
			op, l, r = "-", timestamp, timestamp
		}
	default:
		return g.atom(k, depth)
	}
	return g.expr(l, depth-1) + " " + op + " " + g.expr(r, depth-1)
}

// atom is an expression that binds more than any operator.
func (g *generator) atom(k kind, depth int) string {
	if depth > 0 && g.n(3) == 0 {
		return "(" + g.expr(k, depth-1) + ")"
	}
	var names []string
	for n, of := range g.vars {
		if of == k {
			names = append(names, n)
		}
	}
	if len(names) > 0 && g.n(2) == 0 {
		slices.Sort(names)
		return g.one(names...)
	}
	switch k {
	case doubleVec:
		return g.vector(depth)
	case stringOf:
		return g.one(`"x"`, `"y"`, `""`, "requeue", Option)
	case timestamp:
		return "time()"
	case timeInterval:
		return g.one("TimeInterval_Zero", "TimeInterval_Second", "TimeInterval_Minute", "TimeInterval_Hour", "-TimeInterval_Minute", "TimeInterval_Year")
	}
	return g.number(depth)
}

func (g *generator) metric() string {
	return g.one("$PendingTasks", "$PendingTasks", "$ActiveTasks", "$RunningTasks")
}

func (g *generator) vector(depth int) string {
	if depth > 0 && g.n(4) == 0 {
		return g.one("floor", "ceil", "round") + "(" + g.atom(doubleVec, depth-1) + ", " + g.atom(double, depth-1) + ")"
	}
	at := func() string {
		return g.one("TimeInterval_Minute", "2 * TimeInterval_Minute", "90 * TimeInterval_Second", "TimeInterval_Minute*10", "time() - TimeInterval_Minute", "0 * TimeInterval_Second", "10 * TimeInterval_Second")
	}
	return g.metric() + ".GetSample(" + g.one(g.one("1", "2", "5", "0", "1.5"), at(), at()+", "+at(), at()+", 50", at()+", 0", at()+","+at()+",10", at()+", 0") + ")"
}

func (g *generator) number(depth int) string {
	literal := g.one("0", "1", "2", "2.5", "70", ".5", "1e2", "10", "3")
	if depth <= 0 {
		if g.seldom(100) {
			return "unset"
		}
		return g.one(literal, literal, "$PendingTasks", "$TaskSlotsPerNode", Dedicated, LowPriority, "$TargetDedicated")
	}
	list := func() string {
		out := g.expr([]kind{double, doubleVec, doubleVec}[g.n(2)], depth-1)
		for g.n(2) == 0 {
			out += ", " + g.expr([]kind{double, doubleVec}[g.n(1)], depth-1)
		}
		return out
	}
	switch g.n(9) {
	case 0:
		return g.one("avg", "max", "min", "sum", "len", "norm", "range", "std") + "(" + list() + ")"
	case 1:
		return g.one("val", "percentile") + "(" + g.atom(doubleVec, depth-1) + "," + g.expr(double, depth-1) + ")"
	case 2:
		return "time()." + g.one(members...)
	case 3:
		return g.one("-", "!") + g.atom(double, depth-1)
	case 4:
		return g.metric() + g.one(".Count()", ".GetSamplePercent(5 * TimeInterval_Minute)", ".GetSamplePercent(TimeInterval_Minute, 3 * TimeInterval_Minute)")
	case 5:
		return g.one("floor", "ceil", "round", "lg") + "(" + g.expr(double, depth-1) + ")"
	case 6:
		return "max(0, " + g.atom(doubleVec, depth-1) + ")"
	}
	if g.seldom(30) {
		return "stop()"
	}
	return literal
}

// state has samples of some metrics every 30 s, some missing, some not in order.
func (g *generator) state() State {
	s := State{Now: time.Date(2026, 11, 22+g.n(7), 9, 59, 30+g.n(59), g.n(9)*1e8, time.UTC), Current: map[string]float64{"$TaskSlotsPerNode": 4}, Samples: map[string][]Sample{}}
	if g.n(1) == 0 {
		s.Current[Dedicated] = float64(g.n(9))
	}
	if g.n(1) == 0 {
		s.Current[LowPriority] = float64(g.n(9))
	}
	for _, m := range []string{"$PendingTasks", "$ActiveTasks", "$RunningTasks"} {
		if g.seldom(20) {
			continue
		}
		at := s.Now.Add(time.Duration(60-g.n(1)*g.n(120)) * time.Second).Truncate(30 * time.Second)
		for range 5 + g.n(20) {
			if at = at.Add(-30 * time.Second); g.n(9) > 0 {
				s.Samples[m] = append(s.Samples[m], Sample{at, float64(g.n(8))})
			}
		}
		if g.n(1) == 0 {
			slices.Reverse(s.Samples[m])
		}
	}
	return s
}
