// Package query reads the SQL text of a continuous query into the plans that a server
// runs, one for each dataset: for package window the filter, the keys and windows of the
// groups, and the aggregates; for all that is more than that, a plan of package stream.
//
// Its sub-packages are the whole language, which follows Azure Stream Analytics: sql reads
// texts, expr compiles expressions, stream runs queries over events. docs/query.md
// describes it, and what of it a server can't run. The package is pure, keeps no state, and is
// safe for concurrent use.
package query

import (
	"math"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Plan is a parsed query.
type Plan struct {
	SQL         string
	Into        string        // the dataset it writes
	From        string        // the hub it reads
	TimestampBy string        // column with the event time; empty if the time is computed
	KeyNames    []string      // columns of GROUP BY, in its order
	StampName   string        // the name of System.Timestamp(): the dataset's time column
	Window      time.Duration // the windows' length, at most a day; of General how far rows look back, at most
	Hop         time.Duration // between their ends; it divides a day. That of tumbling windows is their length. 0 for General
	Aggregates  []Aggregate   // value columns of the dataset, in the order of SELECT
	General     *General      // how package stream runs it; nil for package window

	where condition // nil: every reading counts
}

// Values are the names of the dataset's value columns.
func (p *Plan) Values() []string {
	if p.General != nil {
		return p.General.Values
	}
	out := make([]string, len(p.Aggregates))
	for i, a := range p.Aggregates {
		out[i] = a.Name
	}
	return out
}

// Numbers are the columns of readings that the query calculates with.
func (p *Plan) Numbers() (out []string) {
	if p.General != nil {
		return p.General.Numbers
	}
	for _, a := range p.Aggregates {
		if a.Func != "count" {
			out = append(out, a.Column)
		}
	}
	return out
}

// Aggregate is one value column. NULLs (absent values) are ignored. If there is no
// value at all, COUNT is 0 and the others are NULL.
type Aggregate struct {
	Func   string // avg, sum, min, max, count, stdev, stdevp, var or varp
	Column string // the readings' column; empty for COUNT(*), which counts readings
	Name   string // the dataset's column
}

var functions = []string{"avg", "sum", "min", "max", "count", "stdev", "stdevp", "var", "varp"}

// maxOverlap bounds how many windows of a server one reading may belong to: it takes
// memory in each.
const maxOverlap = 60

// Filters reports whether the query has a WHERE condition.
func (p *Plan) Filters() bool { return p.where != nil }

// Filter sets keep[i] to whether reading i fulfils the WHERE condition: whether
// it is true, as in SQL, and not unknown because of a NULL. keyNames are the
// names of the key columns in the order of the keys' values.
func (p *Plan) Filter(r *fleetscore.Readings, keyNames []string, keep []bool) {
	if p.where == nil {
		for i := range keep {
			keep[i] = true
		}
		return
	}
	b := &batch{r: r, keyNames: keyNames, columns: map[string][]int{}}
	for i, c := range r.Columns {
		b.columns[c.Name] = append(b.columns[c.Name], i)
	}
	for i := range keep {
		keep[i] = p.where.holds(b, i) == yes
	}
}

// truth is a value of SQL's three-valued logic: true, false or unknown.
type truth int8

const (
	no truth = iota
	unknown
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// condition is part of WHERE.
type condition interface {
	holds(b *batch, i int) truth
}

type allOf []condition

func (l allOf) holds(b *batch, i int) truth {
	t := yes
	for _, c := range l {
		t = min(t, c.holds(b, i))
	}
	return t
}

type anyOf []condition

func (l anyOf) holds(b *batch, i int) truth {
	t := no
	for _, c := range l {
		t = max(t, c.holds(b, i))
	}
	return t
}

type negation struct{ of condition }

func (n negation) holds(b *batch, i int) truth { return yes - n.of.holds(b, i) }

type isNull struct {
	of  operand
	not bool
}

func (n isNull) holds(b *batch, i int) truth { return truthOf((b.value(n.of, i).kind == 0) != n.not) }

// compare compares two values. A text beside a number counts as the number that it
// spells; a comparison with any other text is unknown.
type compare struct {
	left, right operand
	op          func(int) bool
}

func (c compare) holds(b *batch, i int) truth {
	x, y := b.value(c.left, i), b.value(c.right, i)
	switch {
	case x.kind == 0 || y.kind == 0:
		return unknown
	case x.kind == textOperand && y.kind == textOperand:
		return truthOf(c.op(strings.Compare(x.text, y.text)))
	case x.kind != y.kind && (!x.spellsNumber() || !y.spellsNumber()):
		return unknown
	case x.number < y.number:
		return truthOf(c.op(-1))
	case x.number > y.number:
		return truthOf(c.op(1))
	}
	return truthOf(c.op(0))
}

type operandKind int8

const (
	numberOperand operandKind = 1 + iota
	textOperand
	columnOperand
)

// operand is a constant or a column; as a value, kind 0 is NULL.
type operand struct {
	kind   operandKind
	number float64
	text   string // or the column's name
}

// spellsNumber makes a number of a text that is one; false if it isn't.
func (o *operand) spellsNumber() bool {
	if o.kind == textOperand {
		f, ok := value.String(o.text).AsFloat()
		o.kind, o.number = numberOperand, f
		return ok
	}
	return true
}

// batch finds columns of readings by name.
type batch struct {
	r        *fleetscore.Readings
	keyNames []string
	columns  map[string][]int // one, or one of numbers and one of texts
}

func (b *batch) value(o operand, i int) operand {
	if o.kind != columnOperand {
		return o
	}
	for k, n := range b.keyNames {
		if n == o.text {
			return operand{kind: textOperand, text: b.r.Keys[b.r.KeyIndex[i]].Values()[k]}
		}
	}
	for _, at := range b.columns[o.text] {
		c := &b.r.Columns[at]
		switch {
		case c.Numbers != nil && !math.IsNaN(c.Numbers[i]):
			return operand{kind: numberOperand, number: c.Numbers[i]}
		case c.Strings != nil && (c.Present == nil || c.Present[i]):
			return operand{kind: textOperand, text: c.Strings[i]}
		}
	}
	return operand{}
}
