package sql

import (
	"slices"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// maxDepth bounds how deeply expressions nest.
const maxDepth = 100

// MaxBytes bounds a text.
const MaxBytes = 64 << 10

// Parse reads a text. Errors are of kind Invalid and name the line and column, the word
// that was found, and what works.
func Parse(text string) (*Script, error) {
	if len(text) > MaxBytes {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "read query", "", "the text has %d bytes, more than %d", len(text), MaxBytes)
	}
	tokens, err := lex(Source(text))
	if err != nil {
		return nil, err
	}
	p := &parser{sql: Source(text), tokens: tokens, spans: map[Expr][2]int{}}
	return p.script()
}

type parser struct {
	sql    Source
	tokens []token
	at     int
	depth  int
	spans  map[Expr][2]int // which tokens expressions are
}

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) after(n int) token { return p.tokens[min(p.at+n, len(p.tokens)-1)] }

func (p *parser) next() token {
	t := p.tokens[p.at]
	if t.kind != endOfText {
		p.at++
	}
	return t
}

// sees reports whether the next tokens are these keywords or signs.
func (p *parser) sees(words ...string) bool {
	for i, w := range words {
		if !p.after(i).is(w) {
			return false
		}
	}
	return true
}

// take skips the next tokens and returns true if they are these keywords or signs.
func (p *parser) take(words ...string) bool {
	if !p.sees(words...) {
		return false
	}
	p.at += len(words)
	return true
}

func (p *parser) need(words ...string) error {
	for _, w := range words {
		if t := p.peek(); !p.take(w) {
			return p.expected(w, t)
		}
	}
	return nil
}

// expected says that something else was expected, and what was most likely meant.
func (p *parser) expected(what string, t token) *fleetscore.Error {
	err := p.sql.ErrorAt(t.pos, "%s is expected, not %s", what, t)
	if t.kind == word && !slices.ContainsFunc(reserved, t.is) {
		if near := fleetscore.Nearest(t.text, append([]string{what}, reserved...)); near != "" {
			return err.WithHint("is %s meant?", near)
		}
	}
	return err.WithHint("%s", Shape)
}

// Shape is the form of a query, for hints.
const Shape = "a query has the form: SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value INTO dataset FROM hub " +
	"TIMESTAMP BY TS WHERE condition GROUP BY Device, Tag, TumblingWindow(second, 5) HAVING condition"

// reserved words are names only in brackets.
var reserved = []string{"SELECT", "INTO", "FROM", "TIMESTAMP", "BY", "WHERE", "GROUP", "HAVING", "AS", "AND", "OR", "NOT", "IS", "NULL", "JOIN", "ON", "INNER",
	"LEFT", "OUTER", "UNION", "WITH", "CASE", "WHEN", "THEN", "ELSE", "END", "BETWEEN", "LIKE", "IN", "OVER", "CAST", "TRY_CAST", "CREATE", "CROSS", "APPLY",
	"ORDER", "DISTINCT", "LIMIT", "MATCH_RECOGNIZE", "EXISTS", "PARTITION"}

// name reads a column's, output's or input's name.
func (p *parser) name(what string) (string, error) {
	t := p.peek()
	if t.kind == quoted || t.kind == word && !slices.ContainsFunc(reserved, t.is) {
		p.at++
		return t.text, nil
	}
	return "", p.sql.ErrorAt(t.pos, "%s is expected, not %s", what, t).WithHint("write a name that is a keyword or contains spaces as [name]")
}

func (p *parser) script() (*Script, error) {
	s := &Script{Source: p.sql, tokens: p.tokens, spans: p.spans}
	for {
		for p.take(";") {
		}
		t := p.peek()
		var err error
		switch {
		case t.kind == endOfText:
			if len(s.Statements) == 0 {
				return nil, p.expected("SELECT", t)
			}
			return s, nil
		case p.take("CREATE"):
			err = p.table(s)
		case p.take("WITH"):
			err = p.steps(s)
		case t.is("SELECT"):
			var q *Select
			if q, err = p.query(); err == nil {
				s.Statements = append(s.Statements, q)
			}
		case len(s.Statements) > 0:
			err = p.ends(t)
		default:
			err = p.expected("SELECT", t)
		}
		if err != nil {
			return nil, err
		}
	}
}

// ends says that a query was complete before a word. The word before it may be a mistyped
// keyword that was taken for a name.
func (p *parser) ends(t token) error {
	before := p.tokens[p.at-1]
	near := fleetscore.Nearest(before.text, []string{"WHERE", "GROUP", "HAVING", "JOIN", "UNION", "TIMESTAMP", "PARTITION", "LEFT"})
	if before.kind == word && near != "" && !slices.ContainsFunc(reserved, before.is) {
		return p.sql.ErrorAt(before.pos, "the query ends before %s", before).WithHint("is %s meant?", near)
	}
	return p.sql.ErrorAt(t.pos, "the query ends before %s", t).WithHint("%s", refused(t))
}

// refused says what to do in place of words that other dialects have.
func refused(t token) string {
	switch {
	case t.is("ORDER"):
		return "rows come in the order of their times; TopOne() and CollectTop() OVER (ORDER BY …) order inside a window"
	case t.is("LIMIT"), t.is("TOP"):
		return "take the first rows of a window with CollectTop(n) OVER (ORDER BY …)"
	case t.is("CROSS"), t.is("OUTER"), t.is("APPLY"):
		return "APPLY isn't supported; take single elements with GetArrayElement(array, 0)"
	case t.is("MATCH_RECOGNIZE"):
		return "MATCH_RECOGNIZE isn't supported; LAG(…) OVER (LIMIT DURATION(…)) looks back"
	case t.is("RIGHT"), t.is("FULL"):
		return "JOIN and LEFT JOIN are supported; exchange the two inputs"
	}
	return Shape
}

func (p *parser) table(s *Script) (err error) {
	if err = p.need("TABLE"); err != nil {
		return err
	}
	t := Table{At: p.peek().pos}
	if t.Name, err = p.name("an input's name"); err != nil {
		return err
	}
	if err = p.need("("); err != nil {
		return err
	}
	for {
		c := TableColumn{At: p.peek().pos}
		if c.Name, err = p.name("a column"); err != nil {
			return err
		}
		if c.Type, err = p.dataType(); err != nil {
			return err
		}
		t.Columns = append(t.Columns, c)
		if !p.take(",") {
			break
		}
	}
	s.Tables = append(s.Tables, t)
	return p.need(")")
}

func (p *parser) dataType() (value.Type, error) {
	t := p.next()
	ty, ok := value.TypeNamed(t.text)
	if !ok || t.kind != word && t.kind != quoted {
		err := p.sql.ErrorAt(t.pos, "%s is not a data type", t)
		if other := otherTypes[strings.ToLower(t.text)]; other != "" {
			return 0, err.WithHint("write %s", other)
		}
		if near := fleetscore.Nearest(t.text, value.TypeNames); near != "" {
			return 0, err.WithHint("is %s meant?", near)
		}
		return 0, err.WithHint("the data types are %s", strings.Join(value.TypeNames, ", "))
	}
	if ty == value.Text && p.take("(") {
		if t := p.next(); !t.is("max") {
			return 0, p.sql.ErrorAt(t.pos, "max is expected, not %s", t).WithHint("texts have the type nvarchar(max)")
		}
		return ty, p.need(")")
	}
	return ty, nil
}

// otherTypes are types of other dialects, and what they are here.
var otherTypes = map[string]string{"int": "bigint", "integer": "bigint", "smallint": "bigint", "tinyint": "bigint", "varchar": "nvarchar(max)", "char": "nvarchar(max)", "nchar": "nvarchar(max)",
	"text": "nvarchar(max)", "string": "nvarchar(max)", "real": "float", "double": "float", "decimal": "float", "numeric": "float", "date": "datetime", "datetime2": "datetime",
	"datetimeoffset": "datetime", "timestamp": "datetime", "bool": "bit", "boolean": "bit"}

func (p *parser) steps(s *Script) error {
	for {
		st := Step{At: p.peek().pos}
		var err error
		if st.Name, err = p.name("a step's name"); err != nil {
			return err
		}
		if err = p.need("AS", "("); err != nil {
			return err
		}
		if st.Query, err = p.inner("a step"); err != nil {
			return err
		}
		if slices.ContainsFunc(s.Steps, func(o Step) bool { return strings.EqualFold(o.Name, st.Name) }) {
			return p.sql.ErrorAt(st.At, "there are two steps with the name %s", st.Name)
		}
		s.Steps = append(s.Steps, st)
		if !p.take(",") {
			return nil
		}
	}
}

// inner reads a query inside of parentheses, of which the first is already read.
func (p *parser) inner(what string) (*Select, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.sql.ErrorAt(p.peek().pos, "the query is nested more than %d levels deep", maxDepth)
	}
	defer func() { p.depth-- }()
	q, err := p.query()
	if err != nil {
		return nil, err
	}
	for u := q; u != nil; u = u.Union {
		if u.Into != "" {
			return nil, p.sql.ErrorAt(u.IntoAt, "INTO is not possible in %s", what).WithHint("write INTO in a statement after the steps")
		}
	}
	return q, p.need(")")
}

func (p *parser) query() (*Select, error) {
	q := &Select{At: p.peek().pos}
	if err := p.need("SELECT"); err != nil {
		return nil, err
	}
	if t := p.peek(); t.is("DISTINCT") || t.is("TOP") {
		return nil, p.sql.ErrorAt(t.pos, "SELECT %s is not supported", t.text).WithHint("GROUP BY the columns and a window gives each combination once; COUNT(DISTINCT x) counts them; CollectTop(n) OVER (ORDER BY x) takes the first")
	}
	for {
		it, err := p.item()
		if err != nil {
			return nil, err
		}
		q.Items = append(q.Items, it)
		if !p.take(",") {
			break
		}
	}
	if err := p.sources(q); err != nil {
		return nil, err
	}
	if err := p.conditions(q); err != nil {
		return nil, err
	}
	if p.take("UNION") {
		p.take("ALL") // UNION keeps duplicates, as UNION ALL does
		more, err := p.query()
		if err != nil {
			return nil, err
		}
		q.Union = more
	}
	return q, nil
}

func (p *parser) conditions(q *Select) (err error) {
	if p.take("WHERE") {
		if q.Where, err = p.expr(); err != nil {
			return err
		}
	}
	if q.GroupAt = p.peek().pos; p.take("GROUP") {
		if err = p.need("BY"); err != nil {
			return err
		}
		q.Grouped = true
		if err = p.groupBy(q); err != nil {
			return err
		}
	}
	if p.take("HAVING") {
		q.Having, err = p.expr()
	}
	return err
}

func (p *parser) item() (Item, error) {
	t := p.peek()
	it := Item{At: t.pos}
	if p.take("*") {
		it.Star = true
		return it, nil
	}
	for n := 0; p.after(n).kind == word || p.after(n).kind == quoted; n += 2 { // name.name.*
		it.Of = append(it.Of, p.after(n).text)
		if !p.after(n + 1).is(".") {
			break
		}
		if p.after(n + 2).is("*") {
			p.at += n + 3
			it.Star = true
			return it, nil
		}
	}
	it.Of = nil
	if (t.kind == word && !slices.ContainsFunc(reserved, t.is) || t.kind == quoted) && p.after(1).is("=") { // alias = expression
		p.at += 2
		it.Name = t.text
	}
	x, err := p.expr()
	if err != nil {
		return it, err
	}
	it.Expr = x
	after := p.peek()
	switch {
	case it.Name != "": // alias = expression
	case p.take("AS"):
		if t := p.peek(); t.kind == text || t.kind == word && !t.is("FROM") && !t.is("INTO") { // AS 'name' and AS end, as in T-SQL
			p.at++
			it.Name = t.text
			return it, nil
		}
		it.Name, err = p.name("a name")
	case after.kind == quoted || after.kind == word && !slices.ContainsFunc(reserved, after.is):
		p.at++
		it.Name = after.text
	}
	return it, err
}

func (p *parser) sources(q *Select) (err error) {
	if q.IntoAt = p.peek().pos; p.take("INTO") {
		if q.Into, err = p.name("an output's name"); err != nil {
			return err
		}
	}
	if t := p.peek(); !p.take("FROM") {
		if before := p.tokens[p.at-1]; before.kind == word && fleetscore.Nearest(before.text, []string{"FROM", "INTO"}) != "" {
			return p.expected("FROM", before) // a mistyped keyword was taken for a name
		}
		return p.expected("FROM", t)
	}
	if q.From, err = p.input(); err != nil {
		return err
	}
	for {
		var j Join
		t := p.peek()
		switch {
		case p.take("LEFT", "OUTER", "JOIN"), p.take("LEFT", "JOIN"):
			j.Left = true
		case p.take("INNER", "JOIN"), p.take("JOIN"):
		case t.is("RIGHT"), t.is("FULL"), t.is("CROSS"), t.is("OUTER"), t.is("MATCH_RECOGNIZE"):
			return p.sql.ErrorAt(t.pos, "%s is not supported", t.text).WithHint("%s", refused(t))
		case t.is(","):
			return p.sql.ErrorAt(t.pos, "FROM takes one input, not a list").WithHint("write input1 JOIN input2 ON …")
		default:
			return nil
		}
		if j.Input, err = p.input(); err != nil {
			return err
		}
		if err = p.need("ON"); err != nil {
			return err
		}
		if j.On, err = p.expr(); err != nil {
			return err
		}
		q.Joins = append(q.Joins, j)
	}
}

func (p *parser) input() (in Input, err error) {
	in.At = p.peek().pos
	if p.take("(") {
		if in.Query, err = p.inner("a subquery"); err != nil {
			return in, err
		}
	} else if in.Name, err = p.name("an input's name"); err != nil {
		return in, err
	}
	in.Alias = in.Name
	if err = p.alias(&in); err != nil {
		return in, err
	}
	for {
		switch {
		case in.TimestampBy == nil && p.take("TIMESTAMP", "BY"):
			if in.TimestampBy, err = p.expr(); err != nil {
				return in, err
			}
			if p.take("OVER") {
				if in.Over, err = p.list(); err != nil {
					return in, err
				}
			}
		case p.take("PARTITION", "BY"): // rows don't depend on it, so it is accepted
			if _, err = p.list(); err != nil {
				return in, err
			}
			if p.sees("INTO") && p.after(1).kind == number { // the number of shards
				p.at += 2
			}
		default:
			if in.Alias == in.Name && in.TimestampBy != nil { // an alias may stand behind TIMESTAMP BY too
				return in, p.alias(&in)
			}
			return in, nil
		}
	}
}

// alias reads what an input is called in expressions.
func (p *parser) alias(in *Input) (err error) {
	t := p.peek()
	switch {
	case p.take("AS"):
		in.Alias, err = p.name("an input's name")
	case t.kind == quoted || t.kind == word && !slices.ContainsFunc(reserved, t.is) && !t.is("RIGHT") && !t.is("FULL"):
		p.at++
		in.Alias = t.text
	}
	return err
}

// list reads expressions with commas between them.
func (p *parser) list() (out []Expr, err error) {
	for {
		x, err := p.expr()
		if err != nil {
			return nil, err
		}
		out = append(out, x)
		if !p.take(",") {
			return out, nil
		}
	}
}

// groupBy reads keys and windows.
func (p *parser) groupBy(q *Select) error {
	var stamps []*Stamp
	for {
		t := p.peek()
		several, err := p.windows(q)
		if err != nil {
			return err
		}
		if !several {
			x, err := p.expr()
			if err != nil {
				return err
			}
			switch s := x.(type) {
			case *Stamp:
				stamps = append(stamps, s)
			case *Literal:
				return p.sql.ErrorAt(t.pos, "GROUP BY %s groups nothing", t).WithHint("write the columns by name")
			default:
				q.GroupBy = append(q.GroupBy, x)
			}
		}
		if !p.take(",") {
			break
		}
	}
	for i, s := range stamps { // alone it is the window; beside another window, or a second time, a key
		if len(q.Windows) == 0 && i == 0 {
			q.Windows = append(q.Windows, Window{Kind: Snapshot, At: s.At})
		} else {
			q.GroupBy = append(q.GroupBy, s)
		}
	}
	if len(q.Windows) == 0 {
		return p.sql.ErrorAt(q.GroupAt, "a window must be specified: GROUP BY needs a window").
			WithHint("add for example TumblingWindow(second, 5); System.Timestamp() is a window only by itself, not inside an expression")
	}
	return nil
}

func parseInt(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
