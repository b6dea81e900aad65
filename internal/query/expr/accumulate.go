package expr

import (
	"math"
	"slices"

	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Accumulator is the state of one aggregate over rows, which come in the order of time.
type Accumulator interface {
	Add(args []value.Value)
	Result() value.Value
	// Save adds the state to a checkpoint, and Load takes it back into a new accumulator.
	Save(f *value.Fields)
	Load(c *value.Cursor)
}

type counter struct{ n int64 }

// Add counts a row, or the argument if it isn't NULL.
func (c *counter) Add(args []value.Value) {
	if len(args) == 0 || !args[0].IsNull() {
		c.n++
	}
}
func (c *counter) Result() value.Value { return value.Int(c.n) }

type distinct struct{ seen map[string]bool }

func (d *distinct) Add(args []value.Value) {
	if !args[0].IsNull() {
		d.seen[value.Key(args[0])] = true
	}
}
func (d *distinct) Result() value.Value { return value.Int(int64(len(d.seen))) }

// total sums numbers in the order of the rows, so that a replay gives the same bits. It
// is a bigint as long as all numbers are.
type total struct {
	avg   bool
	n     int64
	whole value.Value // of bigints; NULL if the sum is too large
	float float64
	mixed bool
}

func (t *total) Add(args []value.Value) {
	v := argument('n', args[0])
	if v.IsNull() {
		return
	}
	x, _ := v.AsFloat()
	t.float += x
	switch {
	case v.Type() == value.Float:
		t.mixed = true
	case t.n == 0:
		t.whole = v
	default:
		t.whole = value.Arithmetic('+', t.whole, v)
	}
	t.n++
}

func (t *total) Result() value.Value {
	switch {
	case t.n == 0:
		return value.Null
	case t.avg && !t.mixed && !t.whole.IsNull(): // the sum of bigints is exact
		x, _ := t.whole.AsFloat()
		return value.Number(x / float64(t.n))
	case t.avg:
		return value.Number(t.float / float64(t.n))
	case t.mixed:
		return value.Number(t.float)
	}
	return t.whole
}

// extreme is the least or largest value.
type extreme struct {
	want int
	best value.Value
}

func (x *extreme) Add(args []value.Value) {
	v := args[0]
	if v.IsNull() {
		return
	}
	if c := value.Less(v, x.best); x.best.IsNull() || c == x.want {
		x.best = v
	}
}
func (x *extreme) Result() value.Value { return x.best }

// edge is the first or last value that isn't NULL.
type edge struct {
	last bool
	v    value.Value
}

func (f *edge) Add(args []value.Value) {
	if !args[0].IsNull() && (f.last || f.v.IsNull()) {
		f.v = args[0]
	}
}
func (f *edge) Result() value.Value { return f.v }

// spread is a variance or standard deviation, by Welford's method.
type spread struct {
	population, root bool
	n, mean, squares float64
}

func (s *spread) Add(args []value.Value) {
	x, ok := argument('n', args[0]).AsFloat()
	if !ok {
		return
	}
	s.n++
	d := x - s.mean
	s.mean += d / s.n
	s.squares += d * (x - s.mean)
}

func (s *spread) Result() value.Value {
	n := s.n
	if !s.population {
		n--
	}
	if n <= 0 {
		return value.Null
	}
	v := max(s.squares/n, 0)
	if s.root {
		v = math.Sqrt(v)
	}
	return value.Number(v)
}

type collection struct{ list []value.Value }

func (c *collection) Add(args []value.Value) { c.list = append(c.list, args[0]) }
func (c *collection) Result() value.Value    { return value.List(c.list) }

// ranking keeps the first rows of an order. NULL is the least value; of equal rows the
// earlier one is first.
type ranking struct {
	desc []bool
	most int
	one  bool
	rows [][]value.Value
}

func (r *ranking) Add(args []value.Value) {
	at := len(r.rows)
	for at > 0 && r.before(args, r.rows[at-1]) {
		at--
	}
	if at == r.most {
		return
	}
	r.rows = slices.Insert(r.rows, at, slices.Clone(args))
	if len(r.rows) > r.most {
		r.rows = r.rows[:r.most]
	}
}

func (r *ranking) before(a, b []value.Value) bool {
	for i, desc := range r.desc {
		c := value.Less(a[i+1], b[i+1])
		if desc {
			c = -c
		}
		if c != 0 {
			return c < 0
		}
	}
	return false
}

var rankShape = value.NewShape([]string{"rank", "value"})

func (r *ranking) Result() value.Value {
	if r.one {
		if len(r.rows) == 0 {
			return value.Null
		}
		return r.rows[0][0]
	}
	out := make([]value.Value, len(r.rows))
	for i, row := range r.rows {
		out[i] = value.OfRecord(&value.Record{Shape: rankShape, Values: []value.Value{value.Int(int64(i + 1)), row[0]}})
	}
	return value.List(out)
}

// percentile orders the numbers. between interpolates at p·(n-1); otherwise it is the
// first value whose share of all values is at least p.
type percentile struct {
	fraction float64
	between  bool
	desc     bool
	list     []value.Value
}

func (p *percentile) Add(args []value.Value) {
	if v := argument('n', args[0]); !v.IsNull() {
		p.list = append(p.list, v)
	}
}

func (p *percentile) Result() value.Value {
	n := len(p.list)
	if n == 0 {
		return value.Null
	}
	slices.SortStableFunc(p.list, value.Less)
	if p.desc {
		slices.Reverse(p.list)
	}
	if !p.between {
		return p.list[max(int(math.Ceil(p.fraction*float64(n)-1e-9))-1, 0)]
	}
	place := p.fraction * float64(n-1)
	i := min(int(place), n-1)
	x, _ := p.list[i].AsFloat()
	y, _ := p.list[min(i+1, n-1)].AsFloat()
	return value.Number(x + (y-x)*(place-float64(i)))
}
