// Package sql reads the text of queries into syntax trees: the dialect of Azure Stream
// Analytics, as far as docs/query.md lists it. Whatever else is written there is an error
// that names the word, its line and column, and the nearest thing that works.
//
// The package judges the form alone; package expr judges names and types. It is pure and
// safe for concurrent use.
package sql

import (
	"strings"
	"time"

	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Script is a whole text: steps and statements in their order.
type Script struct {
	Source     Source
	Tables     []Table   // CREATE TABLE
	Steps      []Step    // of WITH
	Statements []*Select // what the script puts out

	tokens []token
	spans  map[Expr][2]int // of the tokens
}

// Written is an expression as it is written, on one line and without comments, for messages and explanations.
func (s *Script) Written(x Expr) string {
	if c, ok := x.(*Column); ok {
		return strings.Join(c.Path, ".")
	}
	if at, ok := s.spans[x]; ok {
		var b strings.Builder
		for i, t := range s.tokens[at[0]:at[1]] {
			if i > 0 && t.pos > s.tokens[at[0]+i-1].end {
				b.WriteByte(' ')
			}
			b.WriteString(string(s.Source[t.pos:t.end]))
		}
		return b.String()
	}
	return Format(x)
}

// Table declares the types of an input's columns.
type Table struct {
	Name    string
	At      int
	Columns []TableColumn
}

// TableColumn is one declared column.
type TableColumn struct {
	Name string
	Type value.Type
	At   int
}

// Step is a named result that FROM can name.
type Step struct {
	Name  string
	At    int
	Query *Select
}

// Select is one SELECT, or several that UNION joins.
type Select struct {
	At      int
	Items   []Item
	Into    string // empty: the default output
	IntoAt  int
	From    Input
	Joins   []Join
	Where   Expr
	Grouped bool // whether there is a GROUP BY
	GroupAt int
	GroupBy []Expr   // the keys
	Windows []Window // of GROUP BY, one or those of Windows()
	Having  Expr
	Union   *Select // the next SELECT of a UNION
}

// Item is one entry of the SELECT list.
type Item struct {
	At   int
	Expr Expr
	Name string   // the alias; empty if there is none
	Star bool     // * or Of.*
	Of   []string // what .* belongs to
}

// Input is one source of a FROM or JOIN.
type Input struct {
	Name        string
	Alias       string // as it is called in expressions; the name if there is no alias
	At          int
	Query       *Select // a subquery, in place of Name
	TimestampBy Expr
	Over        []Expr
}

// Join is a JOIN.
type Join struct {
	Input
	Left bool
	On   Expr
}

// WindowKind is a kind of window.
type WindowKind int

// The kinds of windows.
const (
	Tumbling WindowKind = iota
	Hopping
	Sliding
	Session
	Snapshot
)

var kindNames = [...]string{"TumblingWindow", "HoppingWindow", "SlidingWindow", "SessionWindow", "System.Timestamp()"}

// String returns the window's name in SQL.
func (k WindowKind) String() string { return kindNames[k] }

// Window is one window of a GROUP BY. A tumbling window is one whose Hop is its Size.
type Window struct {
	Kind    WindowKind
	At      int
	ID      string // of Window(id, …)
	Named   bool
	Size    time.Duration // tumbling, hopping, sliding
	Hop     time.Duration // tumbling, hopping
	Offset  time.Duration // tumbling, hopping
	Timeout time.Duration // session
	Max     time.Duration // session
	Over    []Expr        // session: the keys that have sessions of their own
}

// Expr is an expression; At is its byte offset in the text.
type Expr interface{ Pos() int }

// The expressions.
type (
	// Column is a column, a field of a record in a column, or either behind the name of
	// an input.
	Column struct {
		At     int
		Path   []string
		Quoted bool // the first name was in brackets, so it is no keyword
	}
	// Literal is a constant.
	Literal struct {
		At    int
		Value value.Value
	}
	// Unary is -x, +x, ~x or NOT x.
	Unary struct {
		At int
		Op string
		X  Expr
	}
	// Binary is arithmetic, a comparison, AND or OR.
	Binary struct {
		At   int
		Op   string
		L, R Expr
	}
	// IsNull is x IS [NOT] NULL.
	IsNull struct {
		At  int
		X   Expr
		Not bool
	}
	// Between is x [NOT] BETWEEN low AND high.
	Between struct {
		At           int
		X, Low, High Expr
		Not          bool
	}
	// In is x [NOT] IN (…).
	In struct {
		At   int
		X    Expr
		List []Expr
		Not  bool
	}
	// Like is x [NOT] LIKE pattern [ESCAPE c].
	Like struct {
		At                 int
		X, Pattern, Escape Expr
		Not                bool
	}
	// Case is CASE [operand] WHEN … THEN … [ELSE …] END.
	Case struct {
		At      int
		Operand Expr
		Whens   []When
		Else    Expr
	}
	// Cast is CAST or TRY_CAST.
	Cast struct {
		At  int
		X   Expr
		To  value.Type
		Try bool
	}
	// Call is a function with its arguments.
	Call struct {
		At       int
		Name     string
		Args     []Expr
		Star     bool // f(*)
		Distinct bool
		Over     *Over
	}
	// Stamp is System.Timestamp().
	Stamp struct{ At int }
	// WindowID is System.Window().Id.
	WindowID struct{ At int }
)

// When is one branch of CASE.
type When struct{ If, Then Expr }

// Over is an OVER clause.
type Over struct {
	At          int
	PartitionBy []Expr
	OrderBy     []Order
	Limit       time.Duration // LIMIT DURATION; 0 if there is none
	When        Expr
}

// Order is one column of ORDER BY.
type Order struct {
	Expr Expr
	Desc bool
}

func (x *Column) Pos() int   { return x.At }
func (x *Literal) Pos() int  { return x.At }
func (x *Unary) Pos() int    { return x.At }
func (x *Binary) Pos() int   { return x.At }
func (x *IsNull) Pos() int   { return x.At }
func (x *Between) Pos() int  { return x.At }
func (x *In) Pos() int       { return x.At }
func (x *Like) Pos() int     { return x.At }
func (x *Case) Pos() int     { return x.At }
func (x *Cast) Pos() int     { return x.At }
func (x *Call) Pos() int     { return x.At }
func (x *Stamp) Pos() int    { return x.At }
func (x *WindowID) Pos() int { return x.At }
