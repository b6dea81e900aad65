package expr

import (
	"regexp"
	"strings"

	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

func (s *Scope) unary(x *sql.Unary) (Expr, error) {
	y, err := s.Compile(x.X)
	if err != nil {
		return y, err
	}
	switch x.Op {
	case "NOT":
		return Expr{value.Bit, func(e *Env) value.Value { return not(y.Eval(e)) }}, nil
	case "~":
		return Expr{y.Type, func(e *Env) value.Value { return value.Invert(y.Eval(e)) }}, nil
	}
	if !numeric(y.Type) {
		return y, s.SQL.ErrorAt(x.X.Pos(), "%s needs a number, and this is a %s", x.Op, y.Type)
	}
	if x.Op == "+" {
		return y, nil
	}
	return Expr{y.Type, func(e *Env) value.Value { return value.Negate(y.Eval(e)) }}, nil
}

// numeric reports whether values of a type may be numbers.
func numeric(t value.Type) bool {
	return t == value.Any || t == value.Bigint || t == value.Float || t == value.Bit || t == value.Text
}

func not(v value.Value) value.Value {
	if v.IsNull() {
		return v
	}
	return value.Of(!v.True())
}

func (s *Scope) binary(x *sql.Binary) (Expr, error) {
	l, err := s.Compile(x.L)
	if err != nil {
		return l, err
	}
	r, err := s.Compile(x.R)
	if err != nil {
		return r, err
	}
	switch x.Op {
	case "AND":
		return Expr{value.Bit, func(e *Env) value.Value { return and(l.Eval(e), func() value.Value { return r.Eval(e) }) }}, nil
	case "OR":
		return Expr{value.Bit, func(e *Env) value.Value {
			return not(and(not(l.Eval(e)), func() value.Value { return not(r.Eval(e)) }))
		}}, nil
	case "=", "<>", "<", "<=", ">", ">=":
		if !comparable(l.Type, r.Type) {
			return l, s.SQL.ErrorAt(x.At, "a %s can't be compared with a %s", l.Type, r.Type).WithHint("convert one of them with CAST(… AS %s)", l.Type)
		}
		test := sql.Comparisons[x.Op]
		return Expr{value.Bit, func(e *Env) value.Value { return compare(l.Eval(e), r.Eval(e), test) }}, nil
	case "&", "|", "^":
		return Expr{value.Bigint, func(e *Env) value.Value { return value.Bits(x.Op[0], l.Eval(e), r.Eval(e)) }}, nil
	}
	if !numeric(l.Type) || !numeric(r.Type) {
		err := s.SQL.ErrorAt(x.At, "%s needs numbers, not a %s and a %s", x.Op, l.Type, r.Type)
		if l.Type == value.Datetime || r.Type == value.Datetime {
			err = err.WithHint("DATEADD and DATEDIFF compute with times")
		}
		return l, err
	}
	op := x.Op[0]
	return Expr{arithmeticType(op, l.Type, r.Type), func(e *Env) value.Value { return value.Arithmetic(op, l.Eval(e), r.Eval(e)) }}, nil
}

func arithmeticType(op byte, l, r value.Type) value.Type {
	switch {
	case l == value.Any || r == value.Any:
		return value.Any
	case l == value.Float || r == value.Float:
		return value.Float
	case l == value.Text && r == value.Text && op == '+':
		return value.Text
	case l == value.Text || r == value.Text:
		return value.Any
	}
	return value.Bigint
}

// comparable reports whether values of two types can be compared.
func comparable(a, b value.Type) bool {
	switch {
	case a == value.Any || b == value.Any || a == b:
		return true
	case a == value.Datetime || b == value.Datetime:
		return a == value.Text || b == value.Text
	}
	return numeric(a) && numeric(b)
}

func compare(a, b value.Value, test func(int) bool) value.Value {
	c, ok := value.Compare(a, b)
	if !ok {
		return value.Null
	}
	return value.Of(test(c))
}

// and follows SQL's three values: false wins, then unknown.
func and(l value.Value, r func() value.Value) value.Value {
	if !l.IsNull() && !l.True() {
		return value.Of(false)
	}
	y := r()
	switch {
	case !y.IsNull() && !y.True():
		return value.Of(false)
	case l.IsNull() || y.IsNull():
		return value.Null
	}
	return value.Of(true)
}

func (s *Scope) between(x *sql.Between) (Expr, error) {
	list, err := s.All([]sql.Expr{x.X, x.Low, x.High})
	if err != nil {
		return Expr{}, err
	}
	for i, end := range []sql.Expr{x.Low, x.High} {
		if t := list[i+1].Type; !comparable(list[0].Type, t) {
			return Expr{}, s.SQL.ErrorAt(end.Pos(), "a %s can't be compared with a %s", list[0].Type, t)
		}
	}
	return Expr{value.Bit, func(e *Env) value.Value {
		v := list[0].Eval(e)
		in := and(compare(v, list[1].Eval(e), sql.Comparisons[">="]), func() value.Value { return compare(v, list[2].Eval(e), sql.Comparisons["<="]) })
		if x.Not {
			return not(in)
		}
		return in
	}}, nil
}

func (s *Scope) in(x *sql.In) (Expr, error) {
	y, err := s.Compile(x.X)
	if err != nil {
		return y, err
	}
	list, err := s.All(x.List)
	if err != nil {
		return y, err
	}
	return Expr{value.Bit, func(e *Env) value.Value {
		v, found := y.Eval(e), value.Of(false)
		for _, c := range list {
			switch is := compare(v, c.Eval(e), sql.Comparisons["="]); {
			case is.True():
				return value.Of(!x.Not)
			case is.IsNull():
				found = value.Null
			}
		}
		if x.Not {
			return not(found)
		}
		return found
	}}, nil
}

func (s *Scope) like(x *sql.Like) (Expr, error) {
	y, err := s.Compile(x.X)
	if err != nil {
		return y, err
	}
	p, err := s.Compile(x.Pattern)
	if err != nil {
		return y, err
	}
	var escape string
	if x.Escape != nil {
		l, ok := x.Escape.(*sql.Literal)
		if !ok || len([]rune(l.Value.Text())) != 1 {
			return y, s.SQL.ErrorAt(x.Escape.Pos(), "ESCAPE needs one character in quotes")
		}
		escape = l.Value.Text()
	}
	var fixed *regexp.Regexp
	if l, ok := x.Pattern.(*sql.Literal); ok {
		fixed = pattern(l.Value.Text(), escape, true)
	}
	return Expr{value.Bit, func(e *Env) value.Value {
		v, ok := y.Eval(e).AsText()
		q, ok2 := p.Eval(e).AsText()
		if !ok || !ok2 {
			return value.Null
		}
		re := fixed
		if re == nil {
			re = pattern(q, escape, true)
		}
		return value.Of(re.MatchString(v) != x.Not)
	}}, nil
}

// pattern turns a pattern of LIKE or PATINDEX into a regular expression: % is any text, _
// one character, [a-c] and [^a-c] one of a set. As in SQL Server's default collation,
// upper and lower case are alike.
func pattern(p, escape string, whole bool) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("(?is)")
	if whole {
		b.WriteString("^")
	}
	runes := []rune(p)
	for i := 0; i < len(runes); i++ {
		c := string(runes[i])
		switch {
		case escape != "" && c == escape && i+1 < len(runes):
			i++
			b.WriteString(regexp.QuoteMeta(string(runes[i])))
		case c == "%":
			b.WriteString(".*")
		case c == "_":
			b.WriteString(".")
		case c == "[":
			end := strings.IndexRune(string(runes[i+1:]), ']')
			if end < 0 {
				b.WriteString(`\[`)
				continue
			}
			set := string(runes[i+1:])[:end]
			i += len([]rune(set)) + 1
			b.WriteString(charSet(set))
		default:
			b.WriteString(regexp.QuoteMeta(c))
		}
	}
	if whole {
		b.WriteString("$")
	}
	re, err := regexp.Compile(b.String())
	if err != nil { // a set such as [z-a], which holds nothing
		return regexp.MustCompile(`[^\s\S]`)
	}
	return re
}

func charSet(set string) string {
	not := ""
	if strings.HasPrefix(set, "^") {
		not, set = "^", set[1:]
	}
	if set == "" {
		return `[^\s\S]`
	}
	return "[" + not + strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, "^", `\^`, "&", `\&`).Replace(set) + "]"
}

func (s *Scope) caseOf(x *sql.Case) (Expr, error) {
	type branch struct{ when, then Expr }
	var list []branch
	var operand Expr
	var err error
	if x.Operand != nil {
		if operand, err = s.Compile(x.Operand); err != nil {
			return operand, err
		}
	}
	t, first := value.Any, true
	merge := func(u value.Type, lit sql.Expr) {
		if l, ok := lit.(*sql.Literal); ok && l.Value.IsNull() {
			return
		}
		if first {
			t, first = u, false
		} else if t != u {
			t = value.Any
		}
	}
	for _, w := range x.Whens {
		var b branch
		if x.Operand != nil {
			b.when, err = s.Compile(w.If)
		} else {
			inner := *s
			inner.Clause = "WHEN"
			b.when, err = inner.Condition(w.If)
		}
		if err != nil {
			return b.when, err
		}
		if b.then, err = s.Compile(w.Then); err != nil {
			return b.then, err
		}
		merge(b.then.Type, w.Then)
		list = append(list, b)
	}
	other := Expr{value.Any, func(*Env) value.Value { return value.Null }}
	if x.Else != nil {
		if other, err = s.Compile(x.Else); err != nil {
			return other, err
		}
		merge(other.Type, x.Else)
	}
	return Expr{t, func(e *Env) value.Value {
		var v value.Value
		if x.Operand != nil {
			v = operand.Eval(e)
		}
		for _, b := range list {
			c := b.when.Eval(e)
			if x.Operand != nil {
				c = compare(v, c, sql.Comparisons["="])
			}
			if c.True() {
				return b.then.Eval(e)
			}
		}
		return other.Eval(e)
	}}, nil
}

func (s *Scope) cast(x *sql.Cast) (Expr, error) {
	y, err := s.Compile(x.X)
	if err != nil {
		return y, err
	}
	return Expr{x.To, func(e *Env) value.Value {
		v := y.Eval(e)
		to, ok := value.Cast(v, x.To)
		if !ok && !x.Try {
			return e.fail(s.SQL.ErrorAt(x.At, "CAST: %s can't be converted to %s", value.AppendJSON(nil, v), x.To).WithHint("TRY_CAST gives NULL where CAST fails"))
		}
		if !ok {
			return value.Null
		}
		return to
	}}, nil
}
