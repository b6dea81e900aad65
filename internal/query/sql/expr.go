package sql

import (
	"slices"
	"strconv"

	"github.com/fleetscore/fleetscore/internal/query/value"
)

// expr reads an expression; OR binds least.
func (p *parser) expr() (Expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.sql.ErrorAt(p.peek().pos, "the expression is nested more than %d levels deep", maxDepth)
	}
	defer func() { p.depth-- }()
	from := p.at
	x, err := p.chain(p.and, "OR")
	if err == nil {
		p.spans[x] = [2]int{from, p.at}
	}
	return x, err
}

func (p *parser) and() (Expr, error) { return p.chain(p.not, "AND") }

// chain reads parts that one of the operators joins, from left to right.
func (p *parser) chain(part func() (Expr, error), operators ...string) (Expr, error) {
	x, err := part()
	if err != nil {
		return nil, err
	}
	for {
		t := p.peek()
		i := slices.IndexFunc(operators, t.is)
		if i < 0 {
			return x, nil
		}
		p.at++
		y, err := part()
		if err != nil {
			return nil, err
		}
		x = &Binary{At: t.pos, Op: operators[i], L: x, R: y}
	}
}

func (p *parser) not() (Expr, error) {
	if t := p.peek(); p.take("NOT") {
		if p.depth++; p.depth > maxDepth {
			return nil, p.sql.ErrorAt(t.pos, "the expression is nested more than %d levels deep", maxDepth)
		}
		defer func() { p.depth-- }()
		x, err := p.not()
		return &Unary{At: t.pos, Op: "NOT", X: x}, err
	}
	return p.comparison()
}

var comparisons = []string{"=", "<>", "!=", "<=", ">=", "<", ">", "!<", "!>"}

func (p *parser) comparison() (Expr, error) {
	x, err := p.bits()
	if err != nil {
		return nil, err
	}
	for {
		t := p.peek()
		if t.kind == sign && slices.Contains(comparisons, t.text) {
			p.at++
			y, err := p.bits()
			if err != nil {
				return nil, err
			}
			op := t.text
			switch op {
			case "!=":
				op = "<>"
			case "!<":
				op = ">="
			case "!>":
				op = "<="
			}
			x = &Binary{At: t.pos, Op: op, L: x, R: y}
			continue
		}
		if p.take("IS") {
			not := p.take("NOT")
			if err := p.need("NULL"); err != nil {
				return nil, err
			}
			x = &IsNull{At: t.pos, X: x, Not: not}
			continue
		}
		not := t.is("NOT") && (p.after(1).is("BETWEEN") || p.after(1).is("IN") || p.after(1).is("LIKE"))
		if not {
			p.at++
		}
		y, err := p.predicate(x, not)
		if y == nil || err != nil {
			return x, err
		}
		x = y
	}
}

// predicate reads BETWEEN, IN or LIKE behind x; nil if there is none.
func (p *parser) predicate(x Expr, not bool) (Expr, error) {
	t := p.peek()
	switch {
	case p.take("BETWEEN"):
		low, err := p.bits()
		if err != nil {
			return nil, err
		}
		if err = p.need("AND"); err != nil {
			return nil, err
		}
		high, err := p.bits()
		return &Between{At: t.pos, X: x, Low: low, High: high, Not: not}, err
	case p.take("IN"):
		if err := p.need("("); err != nil {
			return nil, err
		}
		list, err := p.list()
		if err != nil {
			return nil, err
		}
		return &In{At: t.pos, X: x, List: list, Not: not}, p.need(")")
	case p.take("LIKE"):
		l := &Like{At: t.pos, X: x, Not: not}
		var err error
		if l.Pattern, err = p.bits(); err != nil {
			return nil, err
		}
		if p.take("ESCAPE") {
			l.Escape, err = p.bits()
		}
		return l, err
	}
	return nil, nil
}

func (p *parser) bits() (Expr, error)    { return p.chain(p.sum, "&", "|", "^") }
func (p *parser) sum() (Expr, error)     { return p.chain(p.product, "+", "-") }
func (p *parser) product() (Expr, error) { return p.chain(p.unary, "*", "/", "%") }

func (p *parser) unary() (Expr, error) {
	t := p.peek()
	for _, op := range []string{"-", "+", "~"} {
		if !p.take(op) {
			continue
		}
		if n := p.peek(); op == "-" && n.kind == number { // so that the least bigint can be written
			p.at++
			v, err := p.number(n, "-"+n.text)
			return literal(t.pos, v), err
		}
		if p.depth++; p.depth > maxDepth {
			return nil, p.sql.ErrorAt(t.pos, "the expression is nested more than %d levels deep", maxDepth)
		}
		defer func() { p.depth-- }()
		x, err := p.unary()
		return &Unary{At: t.pos, Op: op, X: x}, err
	}
	return p.postfix()
}

func (p *parser) number(t token, text string) (value.Value, error) {
	if n, ok := parseInt(text); ok {
		return value.Int(n), nil
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return value.Null, p.sql.ErrorAt(t.pos, "the number %s is too large", t.text)
	}
	return value.Number(x), nil
}

// postfix reads an operand, and .name behind a call that gives a record.
func (p *parser) postfix() (Expr, error) {
	x, err := p.operand()
	for err == nil {
		c, isCall := x.(*Call)
		t := p.peek()
		if !isCall || !p.take(".") {
			break
		}
		name, err := p.name("a field's name")
		if err != nil {
			return nil, err
		}
		x = &Call{At: c.At, Name: "GetRecordPropertyValue", Args: []Expr{c, literal(t.pos, value.String(name))}}
	}
	return x, err
}

func (p *parser) operand() (Expr, error) {
	t := p.peek()
	switch {
	case t.kind == number:
		p.at++
		v, err := p.number(t, t.text)
		return literal(t.pos, v), err
	case t.kind == text:
		p.at++
		return literal(t.pos, value.String(t.text)), nil
	case p.take("NULL"):
		return literal(t.pos, value.Null), nil
	case p.take("("):
		if p.sees("SELECT") {
			return nil, p.sql.ErrorAt(p.peek().pos, "a query inside of an expression is not supported").WithHint("write it as a step: WITH name AS (SELECT …), and JOIN it")
		}
		x, err := p.expr()
		if err != nil {
			return nil, err
		}
		return x, p.need(")")
	case p.take("CASE"):
		return p.caseOf(t)
	case t.is("CAST"), t.is("TRY_CAST"):
		return p.cast()
	case p.sees("System", ".", "Timestamp"):
		p.stamp()
		return &Stamp{At: t.pos}, nil
	case p.take("System", ".", "Window"):
		p.take("(", ")")
		return &WindowID{At: t.pos}, p.need(".", "Id")
	case t.is("EXISTS"):
		return nil, p.sql.ErrorAt(t.pos, "EXISTS is not supported").WithHint("JOIN the other input, or LEFT JOIN and test for IS NULL")
	case (t.kind == word || t.is("LEFT")) && p.after(1).is("(") && (!slices.ContainsFunc(reserved, t.is) || t.is("LEFT")):
		return p.call()
	}
	return p.column()
}

func (p *parser) column() (Expr, error) {
	t := p.peek()
	c := &Column{At: t.pos, Quoted: t.kind == quoted}
	name, err := p.name("a column, function, number or text")
	if err != nil {
		return nil, err
	}
	c.Path = []string{name}
	for p.peek().is(".") && (p.after(1).kind == word || p.after(1).kind == quoted) {
		p.at++
		c.Path = append(c.Path, p.next().text) // behind a point no word is a keyword
	}
	return c, nil
}

func (p *parser) caseOf(t token) (Expr, error) {
	c := &Case{At: t.pos}
	var err error
	if !p.sees("WHEN") {
		if c.Operand, err = p.expr(); err != nil {
			return nil, err
		}
	}
	for p.take("WHEN") {
		var w When
		if w.If, err = p.expr(); err != nil {
			return nil, err
		}
		if err = p.need("THEN"); err != nil {
			return nil, err
		}
		if w.Then, err = p.expr(); err != nil {
			return nil, err
		}
		c.Whens = append(c.Whens, w)
	}
	if len(c.Whens) == 0 {
		return nil, p.expected("WHEN", p.peek())
	}
	if p.take("ELSE") {
		if c.Else, err = p.expr(); err != nil {
			return nil, err
		}
	}
	return c, p.need("END")
}

func (p *parser) cast() (Expr, error) {
	t := p.next()
	c := &Cast{At: t.pos, Try: t.is("TRY_CAST")}
	err := p.need("(")
	if err != nil {
		return nil, err
	}
	if c.X, err = p.expr(); err != nil {
		return nil, err
	}
	if err = p.need("AS"); err != nil {
		return nil, err
	}
	if c.To, err = p.dataType(); err != nil {
		return nil, err
	}
	return c, p.need(")")
}

func (p *parser) call() (Expr, error) {
	t := p.next()
	c := &Call{At: t.pos, Name: t.text}
	p.at++ // (
	switch {
	case p.take("*", ")"):
		c.Star = true
	case p.take(")"):
	default:
		if p.take("DISTINCT") {
			c.Distinct = true
		} else if p.sees("ALL") && !p.after(1).is(",") && !p.after(1).is(")") && !p.after(1).is(".") {
			p.at++ // the default
		}
		if p.take("*") && p.sees(",") { // LAG(*, 1)
			c.Star = true
			p.at++
		}
		var err error
		if c.Args, err = p.list(); err != nil {
			return nil, err
		}
		if err = p.need(")"); err != nil {
			return nil, err
		}
	}
	if p.sees("WITHIN", "GROUP", "(") {
		return nil, p.sql.ErrorAt(p.peek().pos, "WITHIN GROUP is not supported").WithHint("write OVER (ORDER BY x), as in PERCENTILE_CONT(0.5) OVER (ORDER BY x)")
	}
	if o := p.peek(); p.take("OVER", "(") {
		over, err := p.over(o.pos)
		c.Over = over
		return c, err
	}
	return c, nil
}

func (p *parser) over(at int) (*Over, error) {
	o := &Over{At: at}
	for !p.take(")") {
		t := p.peek()
		var err error
		switch {
		case len(o.PartitionBy) == 0 && p.take("PARTITION", "BY"):
			o.PartitionBy, err = p.list()
		case len(o.OrderBy) == 0 && p.take("ORDER", "BY"):
			o.OrderBy, err = p.orders()
		case o.Limit == 0 && p.take("LIMIT"):
			o.Limit, err = p.duration()
		case o.When == nil && p.take("WHEN"):
			o.When, err = p.expr()
		default:
			return nil, p.sql.ErrorAt(t.pos, "%s has no place inside of OVER", t).WithHint("OVER takes PARTITION BY, ORDER BY, LIMIT DURATION(unit, n) and WHEN, each once")
		}
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (p *parser) orders() (out []Order, err error) {
	for {
		x, err := p.expr()
		if err != nil {
			return nil, err
		}
		o := Order{Expr: x, Desc: p.take("DESC")}
		if !o.Desc {
			p.take("ASC")
		}
		out = append(out, o)
		if !p.take(",") {
			return out, nil
		}
	}
}

// Comparisons are the operators that compare. Each tells from the order of two values, as
// cmp.Compare gives it, whether it holds.
var Comparisons = map[string]func(order int) bool{
	"=":  func(c int) bool { return c == 0 },
	"<>": func(c int) bool { return c != 0 },
	"<":  func(c int) bool { return c < 0 },
	"<=": func(c int) bool { return c <= 0 },
	">":  func(c int) bool { return c > 0 },
	">=": func(c int) bool { return c >= 0 },
}
