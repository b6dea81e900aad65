package query

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxDepth bounds how deeply conditions nest.
const maxDepth = 100

// MaxBytes bounds a query's text.
const MaxBytes = 64 << 10

type parser struct {
	sql    string
	tokens []token
	at     int
	depth  int
}

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) next() token {
	t := p.tokens[p.at]
	if t.kind != endOfText {
		p.at++
	}
	return t
}

// take skips the next tokens and returns true if they are these keywords or signs.
func (p *parser) take(words ...string) bool {
	for i, w := range words {
		if p.at+i >= len(p.tokens) || !p.tokens[p.at+i].is(w) {
			return false
		}
	}
	p.at += len(words)
	return true
}

func (p *parser) need(words ...string) error {
	for _, w := range words {
		if t := p.peek(); !p.take(w) {
			return errorAt(p.sql, t.pos, "%s is expected, not %s", w, t).WithHint("%s", shape)
		}
	}
	return nil
}

// shape describes the only form of a query.
const shape = "a query has the form: SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value INTO dataset FROM hub " +
	"TIMESTAMP BY TS WHERE condition GROUP BY Device, Tag, TumblingWindow(second, 5)"

var reserved = []string{"SELECT", "INTO", "FROM", "TIMESTAMP", "BY", "WHERE", "GROUP", "AS", "AND", "OR", "NOT", "IS", "NULL"}

// name reads a column's, dataset's or hub's name.
func (p *parser) name(what string) (string, error) {
	t := p.peek()
	if t.kind == quoted || t.kind == word && !slices.ContainsFunc(reserved, t.is) {
		p.at++
		return t.text, nil
	}
	return "", errorAt(p.sql, t.pos, "%s is expected, not %s", what, t).WithHint("write a name that is a keyword or contains spaces as [name]")
}

// item is one entry of the SELECT list.
type item struct {
	pos       int
	stamp     bool // System.Timestamp()
	aggregate Aggregate
	column    string // a key column
	name      string // after AS; else the column's
}

func (p *parser) query() (*Plan, error) {
	plan := &Plan{SQL: p.sql}
	if err := p.need("SELECT"); err != nil {
		return nil, err
	}
	var items []item
	for {
		it, err := p.item()
		if err != nil {
			return nil, err
		}
		items = append(items, it)
		if !p.take(",") {
			break
		}
	}
	if err := p.sources(plan); err != nil {
		return nil, err
	}
	if p.take("WHERE") {
		c, err := p.or()
		if err != nil {
			return nil, err
		}
		plan.where = c
	}
	if err := p.groupBy(plan); err != nil {
		return nil, err
	}
	p.take(";")
	if t := p.peek(); t.kind != endOfText {
		return nil, errorAt(p.sql, t.pos, "the query ends before %s", t).WithHint("%s", shape)
	}
	return plan, p.selected(plan, items)
}

func (p *parser) sources(plan *Plan) (err error) {
	if err = p.need("INTO"); err != nil {
		return err
	}
	if plan.Into, err = p.name("a dataset's name"); err != nil {
		return err
	}
	if err = p.need("FROM"); err != nil {
		return err
	}
	if plan.From, err = p.name("the hub's name"); err != nil {
		return err
	}
	if err = p.need("TIMESTAMP", "BY"); err != nil {
		return err
	}
	plan.TimestampBy, err = p.name("the time column")
	return err
}

func (p *parser) item() (item, error) {
	t := p.peek()
	it := item{pos: t.pos}
	switch {
	case p.take("System", ".", "Timestamp"):
		it.stamp = true
		if p.take("(") {
			if err := p.need(")"); err != nil {
				return it, err
			}
		}
	case t.kind == word && p.tokens[min(p.at+1, len(p.tokens)-1)].is("("):
		p.at += 2
		a := Aggregate{Func: strings.ToLower(t.text)}
		if !slices.Contains(functions, a.Func) {
			return it, errorAt(p.sql, t.pos, "the function %s is unknown", t.text).WithHint("the functions are AVG, SUM, MIN, MAX, COUNT and System.Timestamp()")
		}
		if !(a.Func == "count" && p.take("*")) {
			c, err := p.name("a column")
			if err != nil {
				return it, err
			}
			a.Column = c
		}
		if err := p.need(")"); err != nil {
			return it, err
		}
		it.aggregate = a
	default:
		c, err := p.name("a column or function")
		if err != nil {
			return it, err
		}
		it.column, it.name = c, c
	}
	if p.take("AS") {
		n, err := p.name("a name")
		if err != nil {
			return it, err
		}
		it.name = n
	}
	if it.name == "" {
		return it, errorAt(p.sql, t.pos, "the column has no name").WithHint("name the column with AS")
	}
	return it, nil
}

func (p *parser) groupBy(plan *Plan) error {
	if err := p.need("GROUP", "BY"); err != nil {
		return err
	}
	for {
		t := p.peek()
		if p.take("TumblingWindow") {
			if plan.Window != 0 {
				return errorAt(p.sql, t.pos, "a query can have only one window")
			}
			w, err := p.window()
			if err != nil {
				return err
			}
			plan.Window = w
		} else {
			if next := p.tokens[min(p.at+1, len(p.tokens)-1)]; t.kind == word && next.is("(") {
				return errorAt(p.sql, t.pos, "the window %s is unknown", t.text).WithHint("the only window is TumblingWindow(unit, n)")
			}
			c, err := p.name("a key column or TumblingWindow(unit, n)")
			if err != nil {
				return err
			}
			if slices.Contains(plan.KeyNames, c) {
				return errorAt(p.sql, t.pos, "%s is in GROUP BY twice", c)
			}
			plan.KeyNames = append(plan.KeyNames, c)
		}
		if !p.take(",") {
			break
		}
	}
	if t := p.peek(); plan.Window == 0 || len(plan.KeyNames) == 0 {
		return errorAt(p.sql, t.pos, "GROUP BY needs the key columns and a window").WithHint("write for example GROUP BY Device, Tag, TumblingWindow(second, 5)")
	}
	return nil
}

var units = map[string]time.Duration{
	"microsecond": time.Microsecond, "mcs": time.Microsecond, "millisecond": time.Millisecond, "ms": time.Millisecond,
	"second": time.Second, "ss": time.Second, "s": time.Second, "minute": time.Minute, "mi": time.Minute, "n": time.Minute,
	"hour": time.Hour, "hh": time.Hour, "day": 24 * time.Hour, "dd": 24 * time.Hour, "d": 24 * time.Hour,
}

func (p *parser) window() (time.Duration, error) {
	if err := p.need("("); err != nil {
		return 0, err
	}
	t := p.next()
	unit, ok := units[strings.ToLower(t.text)]
	if !ok {
		unit, ok = units[strings.TrimSuffix(strings.ToLower(t.text), "s")]
	}
	if t.kind != word || !ok {
		return 0, errorAt(p.sql, t.pos, "%s is not a unit of time", t).WithHint("the units are microsecond, millisecond, second, minute, hour, day")
	}
	if err := p.need(","); err != nil {
		return 0, err
	}
	t = p.next()
	n, err := strconv.ParseInt(t.text, 10, 64)
	if t.kind != number || err != nil || n < 1 {
		return 0, errorAt(p.sql, t.pos, "%s is not a whole number of at least 1", t)
	}
	const most = 24 * time.Hour // the windows of a partition are kept in memory
	if n > int64(most/unit) || most%(time.Duration(n)*unit) != 0 {
		return 0, errorAt(p.sql, t.pos, "a window of %d %s does not divide a day", n, unit).WithHint("windows begin at fixed times of the day: use for example 5 seconds, 15 minutes or 6 hours")
	}
	return time.Duration(n) * unit, p.need(")")
}

// selected checks the SELECT list against the rest and writes it into the plan.
func (p *parser) selected(plan *Plan, items []item) error {
	names, keys := map[string]bool{}, map[string]bool{}
	for _, it := range items {
		if names[it.name] {
			return errorAt(p.sql, it.pos, "the column %s is selected twice", it.name)
		}
		names[it.name] = true
		switch {
		case it.stamp && plan.StampName != "":
			return errorAt(p.sql, it.pos, "System.Timestamp() is selected twice")
		case it.stamp:
			plan.StampName = it.name
		case it.aggregate.Func != "":
			it.aggregate.Name = it.name
			if slices.Contains(plan.KeyNames, it.aggregate.Column) && it.aggregate.Func != "count" {
				return errorAt(p.sql, it.pos, "%s is a key column, and keys are text", it.aggregate.Column)
			}
			plan.Aggregates = append(plan.Aggregates, it.aggregate)
		case !slices.Contains(plan.KeyNames, it.column):
			return errorAt(p.sql, it.pos, "%s is neither aggregated nor in GROUP BY", it.column).WithHint("write for example AVG(%s) AS %s", it.column, it.column)
		case it.name != it.column:
			return errorAt(p.sql, it.pos, "key columns keep their names").WithHint("write %s without AS", it.column)
		default:
			keys[it.column] = true
		}
	}
	missing := ""
	switch {
	case plan.StampName == "":
		missing = "System.Timestamp() AS " + plan.TimestampBy
	case len(plan.Aggregates) == 0:
		missing = "an aggregate such as AVG(Value) AS Value"
	}
	for _, k := range plan.KeyNames {
		if !keys[k] {
			missing = "the key column " + k
		}
	}
	if missing != "" {
		return errorAt(p.sql, items[0].pos, "the SELECT list lacks %s", missing).WithHint("%s", shape)
	}
	return nil
}

func (p *parser) or() (condition, error) {
	return p.chain("OR", p.and, func(l []condition) condition { return anyOf(l) })
}

func (p *parser) and() (condition, error) {
	return p.chain("AND", p.not, func(l []condition) condition { return allOf(l) })
}

func (p *parser) chain(word string, part func() (condition, error), join func([]condition) condition) (condition, error) {
	var list []condition
	for {
		c, err := part()
		if err != nil {
			return nil, err
		}
		list = append(list, c)
		if !p.take(word) {
			break
		}
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return join(list), nil
}

func (p *parser) not() (condition, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, errorAt(p.sql, p.peek().pos, "the condition is nested more than %d levels deep", maxDepth)
	}
	defer func() { p.depth-- }()
	if p.take("NOT") {
		c, err := p.not()
		return negation{c}, err
	}
	if p.take("(") {
		c, err := p.or()
		if err != nil {
			return nil, err
		}
		return c, p.need(")")
	}
	return p.comparison()
}

func (p *parser) comparison() (condition, error) {
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	if p.take("IS") {
		not := p.take("NOT")
		return isNull{left, not}, p.need("NULL")
	}
	t := p.next()
	op, ok := operators[t.text]
	if t.kind != sign || !ok {
		return nil, errorAt(p.sql, t.pos, "a comparison is expected, not %s", t).WithHint("the comparisons are =, <>, <, <=, >, >=, IS NULL, IS NOT NULL")
	}
	right, err := p.operand()
	if err != nil {
		return nil, err
	}
	if left.kind != columnOperand && right.kind != columnOperand {
		return nil, errorAt(p.sql, t.pos, "a comparison of two constants is not allowed")
	}
	return compare{left, right, op}, nil
}

func (p *parser) operand() (operand, error) {
	t := p.peek()
	minus := false
	if p.take("-") {
		minus = true
		t = p.peek()
	} else {
		p.take("+")
		t = p.peek()
	}
	switch {
	case t.kind == number:
		p.at++
		x, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			return operand{}, errorAt(p.sql, t.pos, "the number %s is too large", t.text)
		}
		if minus {
			x = -x
		}
		return operand{kind: numberOperand, number: x}, nil
	case minus:
		return operand{}, errorAt(p.sql, t.pos, "a number is expected after -, not %s", t)
	case t.kind == text:
		p.at++
		return operand{kind: textOperand, text: t.text}, nil
	}
	name, err := p.name("a column, number or text")
	return operand{kind: columnOperand, text: name}, err
}

var operators = map[string]func(int) bool{
	"=":  func(c int) bool { return c == 0 },
	"<>": func(c int) bool { return c != 0 },
	"!=": func(c int) bool { return c != 0 },
	"<":  func(c int) bool { return c < 0 },
	"<=": func(c int) bool { return c <= 0 },
	">":  func(c int) bool { return c > 0 },
	">=": func(c int) bool { return c >= 0 },
}

// String describes the plan in a line, for logs.
func (p *Plan) String() string {
	return fmt.Sprintf("%s from %s every %s by %s", p.Into, p.From, p.Window, strings.Join(p.KeyNames, ", "))
}
