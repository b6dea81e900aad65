package formula

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// Parse reads a formula. It reports every error of syntax that it finds, at most
// maxProblems, each with a hint; a name that nothing was assigned to is an error of
// the evaluation that reads it.
func Parse(src string) (*Formula, []*Error) {
	if len(src) > MaxBytes {
		return nil, []*Error{errorAt(src, 0, "the formula has %d bytes; at most %d are possible", len(src), MaxBytes).
			hint("take comments out, or give values that occur often a short name")}
	}
	tokens, broken := lex(src)
	if broken != nil {
		return nil, []*Error{broken}
	}
	p := &parser{src: src, tokens: tokens}
	f := &Formula{src: src}
	for p.peek().kind != endOfText && len(p.problems) < maxProblems {
		if p.take(";") {
			continue
		}
		start := p.peek().pos
		s, err := p.statement()
		if err == nil {
			err = p.endStatement()
		} else {
			p.skip()
		}
		if err != nil {
			p.problems = append(p.problems, err)
			continue
		}
		if f.statements = append(f.statements, s); len(f.statements) > MaxStatements {
			p.problems = append(p.problems, errorAt(src, start, "the formula has more than %d statements", MaxStatements).
				hint("join statements: a value that is used once needs no name of its own"))
			break
		}
	}
	if len(p.problems) > 0 {
		return nil, p.problems
	}
	return f, nil
}

type parser struct {
	src      string
	tokens   []token
	next     int
	depth    int
	problems []*Error
}

func (p *parser) peek() token { return p.tokens[p.next] }

func (p *parser) advance() token {
	t := p.tokens[p.next]
	if t.kind != endOfText {
		p.next++
	}
	return t
}

func (p *parser) take(s string) bool {
	if p.peek().is(s) {
		p.next++
		return true
	}
	return false
}

func (p *parser) errorf(pos int, format string, args ...any) *Error {
	return errorAt(p.src, pos, format, args...)
}

// skip goes to the end of a statement that has an error.
func (p *parser) skip() {
	for t := p.peek(); t.kind != endOfText && !t.is(";"); t = p.peek() {
		p.next++
	}
}

// newLine reports whether the next token stands on a later line than the one before it.
func (p *parser) newLine() bool {
	return p.next > 0 && strings.Contains(p.src[p.tokens[p.next-1].end:p.peek().pos], "\n")
}

func (p *parser) endStatement() *Error {
	t := p.peek()
	switch {
	case t.kind == endOfText || p.take(";"):
		return nil
	case p.newLine() && (t.kind == word || t.kind == number):
		last := p.tokens[p.next-1]
		line, _ := place(p.src, last.pos)
		return p.errorf(last.end, "the statement isn't ended before %s", t).hint("write ; at the end of line %d", line)
	}
	err := p.unexpected("an operator or ; is expected")
	p.skip()
	return err
}

// unexpected is the error that the next token isn't what is expected.
func (p *parser) unexpected(expected string) *Error {
	t := p.peek()
	err := p.errorf(t.pos, "%s, not %s", expected, t)
	switch {
	case t.is("=") && p.next > 0 && levels[p.tokens[p.next-1].text] > 0:
		err.hint("to add to a variable, write x = x + 1")
	case t.is("="):
		err.hint("= assigns a value to one name at the start of a statement; == compares")
	case t.kind == endOfText || t.is(";"):
		err.hint("the statement isn't complete: look for a missing value or parenthesis before this place")
	case t.is("+") || t.is("*") || t.is("/"):
		err.hint("an operator stands between two values")
	case t.is("<") || t.is(">"):
		err.hint("the comparisons are <, <=, ==, >=, > and !=")
	default:
		err.hint("a statement has the form: name = expression;")
	}
	return err
}

func (p *parser) statement() (statement, *Error) {
	t := p.peek()
	if t.kind != word || !p.tokens[p.next+1].is("=") {
		x, err := p.expression()
		return statement{x: x, at: t.pos}, err
	}
	if err := p.assignable(t); err != nil {
		return statement{}, err
	}
	p.next += 2
	x, err := p.expression()
	return statement{t.text, t.pos, x}, err
}

// assignable refuses what can't be assigned to.
func (p *parser) assignable(t token) *Error {
	if assigned(t.text) != "" {
		return nil
	}
	name, known := Canonical(t.text)
	_, constant := intervals[name]
	for _, o := range options {
		constant = constant || o == name
	}
	switch {
	case known:
		return p.errorf(t.pos, "%s can only be read", t.text).hint("give your own variable another name; what a formula sets is %s, %s and %s", Dedicated, LowPriority, Option)
	case constant:
		return p.errorf(t.pos, "%s is a constant", t.text).hint("give your variable another name")
	}
	return nil
}

// deeper counts the nesting of expressions.
func (p *parser) deeper() *Error {
	if p.depth++; p.depth > maxDepth {
		return p.errorf(p.peek().pos, "the expression nests deeper than %d levels", maxDepth).hint("give parts of it a name in statements of their own")
	}
	return nil
}

// expression reads a chain of choices: c ? a : d ? b : e is c ? a : (d ? b : e).
func (p *parser) expression() (expr, *Error) {
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	var chain []choiceExpr
	x, err := p.binary(1)
	for err == nil && p.peek().is("?") {
		c := choiceExpr{pos: p.advance().pos, cond: x}
		if c.yes, err = p.expression(); err != nil {
			return nil, err
		}
		if !p.take(":") {
			return nil, p.errorf(p.peek().pos, ": is expected, not %s", p.peek()).hint("a choice has the form: condition ? value : other value")
		}
		chain = append(chain, c)
		x, err = p.binary(1)
	}
	for i := len(chain) - 1; i >= 0; i-- {
		chain[i].no = x
		x = chain[i]
	}
	return x, err
}

// levels are the operators between two values and how strongly they bind, as in C.
var levels = map[string]int{"||": 1, "&&": 2, "==": 3, "!=": 3, "<": 4, "<=": 4, ">": 4, ">=": 4, "+": 5, "-": 5, "*": 6, "/": 6}

// binary reads operators of at least that level, from left to right.
func (p *parser) binary(least int) (expr, *Error) {
	x, err := p.unary()
	for err == nil {
		t := p.peek()
		level := levels[t.text]
		if t.kind != sign || level < least {
			return x, nil
		}
		p.next++
		var right expr
		if right, err = p.binary(level + 1); err == nil {
			x = binaryExpr{t.pos, t.text, x, right}
		}
	}
	return nil, err
}

func (p *parser) unary() (expr, *Error) {
	t := p.peek()
	if !t.is("-") && !t.is("!") {
		return p.postfix()
	}
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	p.next++
	x, err := p.unary()
	return unaryExpr{t.pos, t.text, x}, err
}

// postfix reads a value with its members and methods.
func (p *parser) postfix() (expr, *Error) {
	x, err := p.primary()
	for err == nil && p.take(".") {
		t := p.peek()
		if t.kind != word {
			return nil, p.unexpected("a member's or method's name is expected")
		}
		p.next++
		if !p.peek().is("(") {
			x, err = p.member(x, t)
			continue
		}
		open := p.peek().pos
		var args []expr
		if args, err = p.arguments(); err == nil {
			x, err = p.method(methodExpr{t.pos, open, x, t.text, args})
		}
	}
	return x, err
}

func (p *parser) member(x expr, t token) (expr, *Error) {
	for _, m := range members {
		if m == t.text {
			return memberExpr{t.pos, x, t.text}, nil
		}
	}
	err := p.errorf(t.pos, "there is no member %s", t.text).hint("a time has %s", strings.Join(members, ", "))
	n := nearest(t.text, methodNames)
	if _, known := methods[t.text]; known {
		n = t.text
	}
	if n != "" {
		err.hint("is the method %s() meant? Its parentheses are missing", n)
	} else if n := nearest(t.text, members); n != "" {
		err.hint("is .%s meant?", n)
	}
	return nil, err
}

func (p *parser) method(x methodExpr) (expr, *Error) {
	name, isName := x.x.(nameExpr)
	metric := isName && isMetric(name.name)
	m, known := methods[x.name]
	switch {
	case known && metric && (len(x.args) < m.least || len(x.args) > m.most):
		return nil, p.errorf(x.open, "%s takes %s, not %d", x.name, count(m.least, m.most), len(x.args)).hint("%s", m.usage)
	case known && metric:
		return x, nil
	case known && x.name != "Count":
		what := "this"
		if isName {
			what = name.name
		}
		return nil, p.errorf(x.pos, "%s has no samples", what).hint("the service's read-only variables have samples, such as $PendingTasks.%s(…)%s", x.name, isMeant(what, metrics))
	}
	err := p.errorf(x.pos, "there is no method %s", x.name)
	plain := strings.ToLower(strings.TrimPrefix(x.name, "Get"))
	if plain == "average" || plain == "mean" {
		plain = "avg"
	} else if plain == "length" || plain == "count" {
		plain = "len"
	}
	if _, function := functions[plain]; function && !metric {
		return nil, err.hint("vectors have no methods: write %s(…) around the vector", plain)
	} else if function && nearest(x.name, methodNames) == "" {
		return nil, err.hint("take samples and give them to a function, such as %s(%s.GetSample(5 * TimeInterval_Minute))", plain, name.name)
	}
	return nil, err.hint("the methods are %s%s", strings.Join(methodNames, ", "), isMeant(x.name, methodNames))
}

// primary reads a number, a text, a name, a call or an expression in parentheses.
func (p *parser) primary() (expr, *Error) {
	t := p.peek()
	switch t.kind {
	case number:
		v, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			return nil, p.errorf(t.pos, "the number %s is too large", t.text).hint("the largest number is about 1.8E308")
		}
		p.next++
		return numberExpr{t.pos, v}, nil
	case text:
		p.next++
		return textExpr{t.pos, t.text}, nil
	case word:
		p.next++
		_, function := functions[t.text]
		if open := p.peek(); open.is("(") && (function || !p.newLine()) {
			args, err := p.arguments()
			if err != nil {
				return nil, err
			}
			return p.call(callExpr{t.pos, open.pos, t.text, args})
		}
		return nameExpr{t.pos, t.text}, nil
	}
	if !p.take("(") {
		return nil, p.unexpected("a value is expected")
	}
	x, err := p.expression()
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		return nil, p.unexpected(") is expected")
	}
	return x, nil
}

// arguments reads a list in parentheses.
func (p *parser) arguments() ([]expr, *Error) {
	p.next++
	var out []expr
	if p.take(")") {
		return nil, nil
	}
	for {
		x, err := p.expression()
		if err != nil {
			return nil, err
		}
		out = append(out, x)
		if p.take(")") {
			return out, nil
		}
		if !p.take(",") {
			return nil, p.unexpected(", or ) is expected")
		}
	}
}

func (p *parser) call(x callExpr) (expr, *Error) {
	f, known := functions[x.name]
	if !known {
		err := p.errorf(x.pos, "there is no function %s", x.name).hint("the functions are %s%s", strings.Join(functionNames, ", "), isMeant(x.name, functionNames))
		if isMetric(x.name) {
			err.hint("%s is a variable: take samples with %s.GetSample(…)", x.name, x.name)
		} else if x.name == "mod" || x.name == "abs" || x.name == "pow" || x.name == "sqrt" || x.name == "if" {
			err.hint("%s", map[string]string{"mod": "the remainder of a divided by b is a - b * floor(a / b)", "abs": "write max(x, -x)", "pow": "write a product",
				"sqrt": "norm(x) is the root of a sum of squares; there are no other roots", "if": "write condition ? value : other value"}[x.name])
		}
		return nil, err
	}
	if len(x.args) < f.least || len(x.args) > f.most {
		return nil, p.errorf(x.open, "%s takes %s, not %d", x.name, count(f.least, f.most), len(x.args)).hint("%s", f.usage)
	}
	return x, nil
}

// count says how many arguments are possible.
func count(least, most int) string {
	switch {
	case most == 0:
		return "no arguments"
	case least == most && most == 1:
		return "1 argument"
	case least == most:
		return fmt.Sprintf("%d arguments", least)
	case most >= anyNumber:
		return fmt.Sprintf("at least %d arguments", least)
	}
	return fmt.Sprintf("%d to %d arguments", least, most)
}

func isMetric(name string) bool {
	n, known := Canonical(name)
	return known && !service[n]
}

// nearest is fleetscore.Nearest for names that may begin with $.
func nearest(name string, known []string) string {
	if best := fleetscore.Nearest(name, known); best != name {
		return best
	}
	return ""
}

func isMeant(name string, known []string) string {
	if n := nearest(name, known); n != "" {
		return "; is " + n + " meant?"
	}
	return ""
}
