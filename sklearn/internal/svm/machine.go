// Package svm computes scikit-learn's support vector machines, in libsvm's order
// of operations.
package svm

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

type kernelKind int

const (
	linear kernelKind = iota
	poly
	rbf
	sigmoid
)

var kernelNames = [...]string{"linear", "poly", "rbf", "sigmoid"}

// machine is the part that all support vector machines have.
type machine struct {
	kind    kernelKind
	gamma   float64
	coef0   float64
	degree  int
	dims    int       // features
	vectors []float64 // count × dims
}

func (m *machine) count() int { return len(m.vectors) / m.dims }

// read reads the kernel and the vectors. The number of vectors comes from their shape:
// in files of early releases n_support_ may be uninitialised memory.
func (m *machine) read(a *estimator.Attributes, impls ...string) {
	impl := a.Text("_impl", impls[0])
	known := false
	for _, i := range impls {
		known = known || i == impl
	}
	if !known {
		a.Fail("_impl is %q", impl)
	}
	if a.Bool("_sparse", false) {
		a.Unsupported("a model fitted on sparse data", "fit it on a dense array, such as X.toarray()")
		return
	}
	name := a.Text("kernel", "rbf")
	m.kind = -1
	for i, n := range kernelNames {
		if n == name {
			m.kind = kernelKind(i)
		}
	}
	if m.kind < 0 {
		if name != "precomputed" {
			name = "a function"
		}
		a.Unsupported("kernel="+name, "use linear, poly, rbf or sigmoid")
		return
	}
	if m.kind != linear {
		if m.gamma = a.Float("_gamma"); m.gamma < 0 {
			a.Fail("_gamma must be a number from 0")
		}
	}
	if m.kind == poly || m.kind == sigmoid {
		m.coef0 = a.FloatOr("coef0", 0)
	}
	if m.kind == poly {
		m.degree = a.Int("degree", 0, 1<<20)
	}
	cols := -1
	if a.Features() > 0 {
		cols = a.Features()
	}
	if cols > 0 && a.Count("support_vectors_") == 0 && a.Dims("support_vectors_") == 2 {
		m.dims = cols // all training rows were within epsilon, so there is only an intercept
	} else {
		m.vectors, _, m.dims = a.Matrix("support_vectors_", -1, cols)
	}
	if !a.Has("_n_support") {
		a.Aged(a.Class + " lacks the attribute _n_support")
	}
}

func (m *machine) Features() int { return m.dims }

// SupportVectors implements estimator.Sized.
func (m *machine) SupportVectors() int { return m.count() }

// Nodes implements estimator.Sized.
func (m *machine) Nodes() int { return 0 }

func (m *machine) parameters() map[string]any {
	p := map[string]any{"kernel": kernelNames[m.kind], "support_vectors": m.count()}
	if m.kind != linear {
		p["gamma"] = m.gamma
	}
	if m.kind == poly {
		p["degree"] = m.degree
	}
	if m.kind == poly || m.kind == sigmoid {
		p["coef0"] = m.coef0
	}
	return p
}

func (m *machine) fields(c *estimator.Codec) {
	kind := int(m.kind)
	c.Int(&kind)
	m.kind = kernelKind(kind)
	c.Int(&m.degree)
	c.Int(&m.dims)
	c.Float(&m.gamma)
	c.Float(&m.coef0)
	c.Floats(&m.vectors)
}

func (m *machine) check(class string) error {
	if m.kind < linear || m.kind > sigmoid || m.dims < 1 || len(m.vectors)%m.dims != 0 || !(m.gamma >= 0) {
		return estimator.Misfit("%s: %d numbers don't fit support vectors with %d features", class, len(m.vectors), m.dims)
	}
	return nil
}

// value returns the kernel of support vector j and a row, as libsvm computes it.
func (m *machine) value(x *estimator.Block, row, j int) float64 {
	v := m.vectors[j*m.dims : (j+1)*m.dims]
	if m.kind == rbf {
		var dist float64
		for k, w := range v {
			d := x.X[k*x.Stride+row] - w
			dist += float64(d * d)
		}
		return math.Exp(-m.gamma * dist)
	}
	var dot float64
	for k, w := range v {
		dot += float64(x.X[k*x.Stride+row] * w)
	}
	switch m.kind {
	case poly:
		return power(float64(m.gamma*dot)+m.coef0, m.degree)
	case sigmoid:
		return math.Tanh(float64(m.gamma*dot) + m.coef0)
	}
	return dot
}

// power is libsvm's powi.
func power(base float64, times int) float64 {
	out := 1.0
	for t := times; t > 0; t /= 2 {
		if t%2 == 1 {
			out *= base
		}
		base *= base
	}
	return out
}

// exponent is the factor of squared distances in the fast kernel, which computes powers
// of 2.
func (m *machine) exponent() float64 { return -m.gamma * math.Log2E }

// near returns how close to 0 a decision may be before the last digits of the fast kernel could decide its
// sign. weight is the sum of the terms' weights.
func (m *machine) near(weight float64) float64 {
	return weight * (1e-12 + float64(m.dims+2*m.count())*0x1p-52)
}

// values writes the kernel of support vector j and every row, with the padding.
func (m *machine) values(x *estimator.Block, j int, dst []float64) {
	v := m.vectors[j*m.dims : (j+1)*m.dims]
	if m.kind == rbf {
		one := [1]float64{1}
		kernel.RBF(dst, x.X, x.Stride, v, one[:], m.dims, m.exponent())
		return
	}
	clear(dst)
	for k, w := range v {
		kernel.AddScaled(dst, x.Lanes(k), w)
	}
	for i, dot := range dst {
		switch m.kind {
		case poly:
			dst[i] = power(float64(m.gamma*dot)+m.coef0, m.degree)
		case sigmoid:
			dst[i] = math.Tanh(float64(m.gamma*dot) + m.coef0)
		}
	}
}

// sums writes Σ coef·K of every row over the first len(coef) support vectors. For an
// rbf kernel, the last digits may differ from libsvm's.
func (m *machine) sums(x *estimator.Block, coef []float64, ws *estimator.Workspace) []float64 {
	sum := ws.Floats(x.Stride)
	if m.kind == rbf {
		kernel.RBF(sum, x.X, x.Stride, m.vectors, coef, m.dims, m.exponent())
		return sum
	}
	clear(sum)
	value := ws.Floats(x.Stride)
	for j, c := range coef {
		m.values(x, j, value)
		kernel.AddScaled(sum, value, c)
	}
	return sum
}

// sum returns Σ coef·K of one row. The conversion keeps compilers from rounding product
// and sum only once, which libsvm doesn't do.
func (m *machine) sum(x *estimator.Block, row int, coef []float64) float64 {
	var s float64
	for j, c := range coef {
		s += float64(c * m.value(x, row, j))
	}
	return s
}

// single is a machine with one decision value: OneClassSVM, SVR, NuSVR.
type single struct {
	machine
	coef      []float64 // one for each vector
	intercept float64
	limit     float64 // decisions closer to 0 are computed again
}

func (s *single) read(a *estimator.Attributes, impl string) {
	s.machine.read(a, impl)
	if a.Err() != nil {
		return
	}
	if s.count() > 0 {
		s.coef, _, _ = a.Matrix(a.FirstOf("_dual_coef_", "dual_coef_"), 1, s.count())
	}
	if i := a.Vector(a.FirstOf("_intercept_", "intercept_"), 1); a.Err() == nil {
		s.intercept = i[0]
	}
}

func (s *single) fields(c *estimator.Codec) {
	s.machine.fields(c)
	c.Floats(&s.coef)
	c.Float(&s.intercept)
}

func (s *single) check(class string) error {
	if err := s.machine.check(class); err != nil {
		return err
	}
	if len(s.coef) != s.count() {
		return estimator.Misfit("%s: %d coefficients don't fit %d support vectors", class, len(s.coef), s.count())
	}
	s.limit = -1
	if s.kind == rbf {
		s.limit = s.near(math.Abs(s.intercept) + weight(s.coef))
	}
	return nil
}

// weight returns Σ|coef|, in four independent sums for speed.
func weight(coef []float64) float64 {
	var a, b, c, d float64
	for ; len(coef) >= 4; coef = coef[4:] {
		a += math.Abs(coef[0])
		b += math.Abs(coef[1])
		c += math.Abs(coef[2])
		d += math.Abs(coef[3])
	}
	for _, v := range coef {
		a += math.Abs(v)
	}
	return a + b + c + d
}

// decide writes every row's decision and label. If a decision is so close to 0 that the
// last digits of the fast kernel may decide its sign, it is computed again as libsvm
// does.
func (s *single) decide(x *estimator.Block, label, decision []float64, ws *estimator.Workspace) {
	sum := s.sums(x, s.coef, ws)[:x.Rows]
	if kernel.Decide(label, decision, sum, s.intercept, s.limit) || s.kind != rbf {
		return
	}
	for i, d := range decision[:x.Rows] {
		if d > s.limit || d < -s.limit {
			continue
		}
		d = s.sum(x, i, s.coef) + s.intercept
		decision[i], label[i] = d, -1
		if d > 0 {
			label[i] = 1
		}
	}
}
