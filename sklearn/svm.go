package sklearn

import (
	"math"

	"github.com/fleetscore/fleetscore"
)

// oneClassSVM is scikit-learn's OneClassSVM with a radial basis function kernel:
//
//	decision(x) = Σ coef·exp(−gamma·‖x − sv‖²) + intercept
//
// in libsvm's order, and an inlier where the decision is above 0.
type oneClassSVM struct {
	sv        []float64 // vectors × features, row-major
	coef      []float64 // one per vector
	gamma     float64
	intercept float64
	nu        float64 // NaN where the file has none
	dims      int     // features
	native    bool    // current scikit-learn finds the attributes it needs
}

func (m *oneClassSVM) class() string  { return "OneClassSVM" }
func (m *oneClassSVM) detector() bool { return true }

func (m *oneClassSVM) parameters() map[string]any {
	p := map[string]any{
		"kernel":          "rbf",
		"gamma":           m.gamma,
		"intercept":       m.intercept,
		"support_vectors": len(m.coef),
	}
	if m.nu-m.nu == 0 {
		p["nu"] = m.nu
	}
	return p
}

// predict writes the decision of every row to score and its sign to prediction.
func (m *oneClassSVM) predict(b *batch, prediction, score []float64, s *Scratch) {
	sum := s.sum[:b.rows]
	clear(sum)
	if m.dims == 1 {
		m.line(b.x, sum)
	} else {
		m.space(b.x, sum)
	}
	for i, v := range sum {
		d := v + m.intercept
		if score != nil {
			score[i] = d
		}
		if prediction != nil {
			label := -1.0
			if d > 0 {
				label = 1
			}
			prediction[i] = label
		}
	}
}

// line sums the kernels of one feature. The conversions keep compilers from
// fusing a product and a sum into one rounding, which libsvm doesn't have.
func (m *oneClassSVM) line(x, sum []float64) {
	neg := -m.gamma
	sum = sum[:len(x)]
	for j, c := range m.coef {
		v := m.sv[j]
		for i, f := range x {
			d := f - v
			sum[i] += float64(c * math.Exp(neg*float64(d*d)))
		}
	}
}

// space sums the kernels of several features.
func (m *oneClassSVM) space(x, sum []float64) {
	neg := -m.gamma
	for j, c := range m.coef {
		v := m.sv[j*m.dims : (j+1)*m.dims]
		for i := range sum {
			row := x[i*m.dims : (i+1)*m.dims]
			row = row[:len(v)]
			var dist float64
			for k, w := range v {
				d := row[k] - w
				dist += float64(d * d)
			}
			sum[i] += float64(c * math.Exp(neg*dist))
		}
	}
}

// decision is the decision of one row that is already scaled.
func (m *oneClassSVM) decision(row []float64) float64 {
	var sum [1]float64
	if m.dims == 1 {
		m.line(row, sum[:])
	} else {
		m.space(row, sum[:])
	}
	return sum[0] + m.intercept
}

// svmAttributes are those of a OneClassSVM that matter, as parsed.
type svmAttributes struct {
	kernel, impl, sparse, gamma, nu value
	vectors, coef, intercept        value
	features                        int
	native                          bool
}

// oneClass reads a OneClassSVM's attributes.
func (b *builder) oneClass(state value, p *part) (*oneClassSVM, error) {
	const class = "OneClassSVM"
	g := b.g
	a, err := b.svmAttributes(state, p)
	if err != nil {
		return nil, err
	}
	if err := b.supportedSVM(&a, p.name); err != nil {
		return nil, err
	}
	for _, need := range [...]struct {
		v    value
		name string
	}{{a.gamma, "_gamma"}, {a.vectors, "support_vectors_"}, {a.coef, "_dual_coef_"}, {a.intercept, "_intercept_"}} {
		if need.v.kind() == kindUnset {
			return nil, misfit("%s: %s is missing", at(class, p.name), need.name).WithHint("fit the model before saving it")
		}
	}
	m := &oneClassSVM{nu: math.NaN(), native: a.native}
	var ok bool
	if m.gamma, ok = g.number(a.gamma); !ok || m.gamma-m.gamma != 0 || m.gamma < 0 {
		return nil, misfit("%s: _gamma must be a number from 0", at(class, p.name))
	}
	if nu, ok := g.number(a.nu); ok {
		m.nu = nu
	}
	var shape [2]int
	if m.sv, shape, err = b.vector(a.vectors, class, p.name, "support_vectors_", 2); err != nil {
		return nil, err
	}
	// The count comes from here alone: in files of early releases n_support_ is
	// memory nobody wrote to.
	count := shape[0]
	m.dims = shape[1]
	if count == 0 || m.dims == 0 {
		return nil, misfit("%s: support_vectors_ is empty", at(class, p.name))
	}
	if a.features != 0 && a.features != m.dims {
		return nil, misfit("%s: support_vectors_ has %d columns for %d features", at(class, p.name), m.dims, a.features)
	}
	if m.coef, shape, err = b.vector(a.coef, class, p.name, "_dual_coef_", 2); err != nil {
		return nil, err
	}
	if shape != [2]int{1, count} {
		return nil, misfit("%s: _dual_coef_ has the shape %d × %d for %d support vectors", at(class, p.name), shape[0], shape[1], count)
	}
	intercept, _, err := b.vector(a.intercept, class, p.name, "_intercept_", 1)
	if err != nil {
		return nil, err
	}
	if len(intercept) != 1 {
		return nil, misfit("%s: _intercept_ has %d numbers instead of one", at(class, p.name), len(intercept))
	}
	m.intercept = intercept[0]
	return m, b.fits(class, p.name, m.dims)
}

func (b *builder) svmAttributes(state value, p *part) (svmAttributes, error) {
	a := svmAttributes{}
	var coef, intercept value // the public ones, which equal the private
	for e := b.g.entries(state); ; {
		key, v, ok := e.pair()
		if !ok {
			break
		}
		switch string(key) {
		case "kernel":
			a.kernel = v
		case "_impl":
			a.impl = v
		case "_sparse":
			a.sparse = v
		case "_gamma":
			a.gamma = v
		case "nu":
			a.nu = v
		case "support_vectors_":
			a.vectors = v
		case "_dual_coef_":
			a.coef = v
		case "dual_coef_":
			coef = v
		case "_intercept_":
			a.intercept = v
		case "intercept_":
			intercept = v
		case "_n_support":
			a.native = true
		default:
			if err := b.common(key, v, p, "OneClassSVM", &a.features); err != nil {
				return a, err
			}
		}
	}
	if a.coef.kind() == kindUnset {
		a.coef = coef
	}
	if a.intercept.kind() == kindUnset {
		a.intercept = intercept
	}
	return a, nil
}

// supportedSVM refuses what this package doesn't score, by its parameter.
func (b *builder) supportedSVM(a *svmAttributes, name string) error {
	const class = "OneClassSVM"
	kernel, ok := b.g.text(a.kernel)
	if !ok {
		kernel = []byte("a function")
	}
	if string(kernel) != "rbf" {
		return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "%s: kernel=%q is not supported", at(class, name), clean(kernel)).
			WithHint("train it with kernel=\"rbf\", scikit-learn's default")
	}
	if impl, ok := b.g.text(a.impl); ok && string(impl) != "one_class" {
		return misfit("%s: _impl is %q", at(class, name), clean(impl))
	}
	if sparse, ok := b.g.boolean(a.sparse); ok && sparse {
		return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "%s was fitted on sparse data, which is not supported", at(class, name)).
			WithHint("fit it on a dense array, such as X.toarray()")
	}
	return nil
}
