package svm

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// Classifier is SVC and NuSVC, which differ only in training: a machine for each pair
// of classes, over common support vectors.
type Classifier struct {
	machine
	class     string
	labels    estimator.Labels
	starts    []int32   // for each class, the start of its vectors; the last entry is the number of vectors
	coef      []float64 // (classes−1) × vectors
	intercept []float64 // one for each pair
	probA     []float64 // one for each pair; nil without probability
	probB     []float64
	oneVersus bool // decision_function_shape="ovr"
	breakTies bool
}

// maxClasses bounds the number of pairs.
const maxClasses = 4096

// ReadClassifier reads the attributes of SVC or NuSVC.
func ReadClassifier(a *estimator.Attributes) estimator.Estimator {
	s := NewClassifier(a.Class)
	impl := "c_svc"
	if a.Class == "NuSVC" {
		impl = "nu_svc"
	}
	s.read(a, impl)
	s.labels = a.Labels("classes_")
	k := s.labels.Len()
	if a.Err() != nil {
		return s
	}
	if k < 2 || k > maxClasses {
		a.Fail("classes_ has %d labels", k)
		return s
	}
	s.starts = []int32{0}
	for _, n := range a.Vector(a.FirstOf("_n_support", "n_support_"), k) {
		if n < 0 || n > float64(s.count()) || n != float64(int(n)) {
			a.Fail("n_support_ holds %v", n)
			return s
		}
		s.starts = append(s.starts, s.starts[len(s.starts)-1]+int32(n))
	}
	pairs := k * (k - 1) / 2
	s.coef, _, _ = a.Matrix(a.FirstOf("_dual_coef_", "dual_coef_"), k-1, s.count())
	s.intercept = a.Vector(a.FirstOf("_intercept_", "intercept_"), pairs)
	if probA := a.FirstOf("_probA", "probA_"); a.Count(probA) > 0 {
		s.probA = a.Vector(probA, pairs)
		s.probB = a.Vector(a.FirstOf("_probB", "probB_"), pairs)
	}
	switch shape := a.Text("decision_function_shape", "ovr"); shape {
	case "ovr":
		s.oneVersus = true
	case "ovo", "None":
	default:
		a.Unsupported("decision_function_shape="+shape, "use ovr or ovo")
	}
	if s.breakTies = a.Bool("break_ties", false); s.breakTies && !s.oneVersus && k > 2 {
		a.Fail("break_ties needs decision_function_shape=ovr")
	}
	return s
}

// NewClassifier returns an empty Classifier for a record to be read into.
func NewClassifier(class string) *Classifier { return &Classifier{class: class} }

func (s *Classifier) Class() string             { return s.class }
func (s *Classifier) Labels() *estimator.Labels { return &s.labels }

func (s *Classifier) Outputs(m estimator.Method, _ int) int {
	k := s.labels.Len()
	switch m {
	case estimator.Predict:
		return 1
	case estimator.DecisionFunction:
		switch {
		case k == 2:
			return 1
		case s.oneVersus:
			return k
		}
		return k * (k - 1) / 2
	case estimator.PredictProba, estimator.PredictLogProba:
		if s.probA != nil {
			return k
		}
	}
	return 0
}

func (s *Classifier) Parameters() map[string]any {
	p := s.machine.parameters()
	p["classes"] = s.labels.Len()
	p["probability"] = s.probA != nil
	return p
}

func (s *Classifier) Fields(c *estimator.Codec) {
	s.fields(c)
	s.labels.Fields(c)
	c.Int32s(&s.starts)
	c.Floats(&s.coef)
	c.Floats(&s.intercept)
	c.Floats(&s.probA)
	c.Floats(&s.probB)
	c.Bool(&s.oneVersus)
	c.Bool(&s.breakTies)
}

func (s *Classifier) Check() error {
	if err := s.check(s.class); err != nil {
		return err
	}
	if err := s.labels.Check(s.class); err != nil {
		return err
	}
	k := s.labels.Len()
	if k < 2 || k > maxClasses {
		return estimator.Misfit("%s: %d classes", s.class, k)
	}
	pairs := k * (k - 1) / 2
	if len(s.starts) != k+1 || len(s.coef) != (k-1)*s.count() || len(s.intercept) != pairs || len(s.probA) != len(s.probB) || (s.probA != nil && len(s.probA) != pairs) {
		return estimator.Misfit("%s: the shapes of the attributes don't fit %d classes and %d support vectors", s.class, k, s.count())
	}
	for i, at := range s.starts[1:] {
		if at < s.starts[i] {
			return estimator.Misfit("%s: n_support_ is negative", s.class)
		}
	}
	if s.starts[0] != 0 || int(s.starts[k]) != s.count() {
		return estimator.Misfit("%s: n_support_ sums to %d for %d support vectors", s.class, s.starts[k], s.count())
	}
	return nil
}

// pairs writes libsvm's decision value for each pair of classes, one column for each
// pair.
func (s *Classifier) pairs(x *estimator.Block, ws *estimator.Workspace) (*estimator.Block, error) {
	if err := x.CheckFinite(s.class); err != nil {
		return nil, err
	}
	k, n := s.labels.Len(), s.count()
	if k == 2 {
		return s.pair(x, ws), nil
	}
	values := ws.Block(x, n)
	for j := range n {
		s.values(x, j, values.Lanes(j))
	}
	out := ws.Block(x, len(s.intercept))
	p := 0
	for i := range k {
		for j := i + 1; j < k; j++ {
			sum := out.Lanes(p)
			clear(sum)
			total := s.add(sum, values, i, s.coef[(j-1)*n:])
			total += s.add(sum, values, j, s.coef[i*n:])
			b := s.intercept[p]
			near := s.near(total + math.Abs(b))
			for r := range sum[:x.Rows] {
				sum[r] += b
				if s.kind == rbf && !(sum[r] > near || sum[r] < -near) {
					sum[r] = s.again(x, r, i, s.coef[(j-1)*n:], 0)
					sum[r] = s.again(x, r, j, s.coef[i*n:], sum[r]) + b
				}
			}
			p++
		}
	}
	return out, nil
}

// pair is pairs for two classes, where each kernel is needed only once.
func (s *Classifier) pair(x *estimator.Block, ws *estimator.Workspace) *estimator.Block {
	out := ws.Block(x, 1)
	two := single{machine: s.machine, coef: s.coef, intercept: s.intercept[0], limit: s.near(weight(s.coef) + math.Abs(s.intercept[0]))}
	two.decide(x, ws.Floats(x.Rows), out.Col(0), ws)
	return out
}

// add adds coef·K over the vectors of a class, and returns Σ|coef|.
func (s *Classifier) add(sum []float64, values *estimator.Block, class int, coef []float64) float64 {
	from, to := s.starts[class], s.starts[class+1]
	for v := from; v < to; v++ {
		kernel.AddScaled(sum, values.Lanes(int(v)), coef[v])
	}
	return weight(coef[from:to])
}

// again is add for one row, with libsvm's own exponential.
func (s *Classifier) again(x *estimator.Block, row, class int, coef []float64, sum float64) float64 {
	for v := s.starts[class]; v < s.starts[class+1]; v++ {
		sum += float64(coef[v] * s.value(x, row, int(v)))
	}
	return sum
}

func (s *Classifier) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	dec, err := s.pairs(x, ws)
	if err != nil {
		return err
	}
	k := s.labels.Len()
	switch m {
	case estimator.Predict:
		if s.breakTies && s.oneVersus && k > 2 {
			d := ws.Block(x, k)
			s.oneVersusRest(dec, d, ws)
			estimator.Choose(d, out.Col(0), &s.labels)
		} else {
			s.vote(dec, out.Col(0), ws)
		}
	case estimator.DecisionFunction:
		switch {
		case k > 2 && s.oneVersus:
			s.oneVersusRest(dec, out, ws)
		case k > 2:
			copy(out.X, dec.X)
		default:
			kernel.Scale(out.Lanes(0), dec.Lanes(0), -1)
		}
	default:
		s.probabilities(dec, out, ws)
		if m == estimator.PredictLogProba {
			estimator.Log(out)
		}
	}
	return nil
}

// vote is libsvm's svm_predict: the class with most votes, the first one if several are
// equal.
func (s *Classifier) vote(dec *estimator.Block, dst []float64, ws *estimator.Workspace) {
	k := s.labels.Len()
	votes := ws.Int32s(k)
	for r := range dst {
		clear(votes)
		p := 0
		for i := range k {
			for j := i + 1; j < k; j++ {
				if dec.Col(p)[r] > 0 {
					votes[i]++
				} else {
					votes[j]++
				}
				p++
			}
		}
		best := 0
		for i, v := range votes {
			if v > votes[best] {
				best = i
			}
		}
		dst[r] = s.labels.Values[best]
	}
}

// oneVersusRest is scikit-learn's _ovr_decision_function: votes, plus confidences that
// are too small to outweigh a vote.
func (s *Classifier) oneVersusRest(dec, out *estimator.Block, ws *estimator.Workspace) {
	k := s.labels.Len()
	sums := ws.Block(dec, k)
	clear(sums.X)
	clear(out.X[:k*out.Stride])
	p := 0
	for i := range k {
		for j := i + 1; j < k; j++ {
			for r, d := range dec.Col(p) {
				confidence := -d
				sums.Col(i)[r] -= confidence
				sums.Col(j)[r] += confidence
				if d < 0 {
					out.Col(j)[r]++
				} else {
					out.Col(i)[r]++
				}
			}
			p++
		}
	}
	for c := range k {
		dst := out.Col(c)
		for r, v := range sums.Col(c) {
			dst[r] += v / (3 * (math.Abs(v) + 1))
		}
	}
}

// probabilities is libsvm's svm_predict_probability: Platt's sigmoid for each pair,
// combined by the second method of Wu, Lin and Weng (2004).
func (s *Classifier) probabilities(dec, out *estimator.Block, ws *estimator.Workspace) {
	const least = 1e-7
	k := s.labels.Len()
	pairwise, q := ws.Floats(k*k), ws.Floats(k*k)
	p, qp := ws.Floats(k), ws.Floats(k)
	for r := range dec.Rows {
		n := 0
		for i := range k {
			for j := i + 1; j < k; j++ {
				v := platt(dec.Col(n)[r], s.probA[n], s.probB[n])
				if !(v > least) { // true for NaN too, as in libsvm
					v = least
				}
				v = min(v, 1-least)
				pairwise[i*k+j], pairwise[j*k+i] = v, 1-v
				n++
			}
		}
		couple(k, pairwise, q, p, qp)
		for c, v := range p {
			out.Col(c)[r] = v
		}
	}
}

func platt(dec, a, b float64) float64 {
	f := float64(dec*a) + b
	if f >= 0 {
		return estimator.Exp(-f) / (1 + estimator.Exp(-f))
	}
	return 1 / (1 + estimator.Exp(f))
}

func couple(k int, r, q, p, qp []float64) {
	for t := range k {
		p[t] = 1 / float64(k)
		q[t*k+t] = 0
		for j := range k {
			if j == t {
				continue
			}
			q[t*k+t] += float64(r[j*k+t] * r[j*k+t])
			q[t*k+j] = -r[j*k+t] * r[t*k+j]
		}
	}
	eps := 0.005 / float64(k)
	for range max(100, k) {
		pqp := 0.0
		for t := range k {
			qp[t] = 0
			for j := range k {
				qp[t] += float64(q[t*k+j] * p[j])
			}
			pqp += float64(p[t] * qp[t])
		}
		worst := 0.0
		for t := range k {
			worst = max(worst, math.Abs(qp[t]-pqp))
		}
		if worst < eps {
			return
		}
		for t := range k {
			diff := (-qp[t] + pqp) / q[t*k+t]
			p[t] += diff
			pqp = (pqp + diff*(diff*q[t*k+t]+2*qp[t])) / (1 + diff) / (1 + diff)
			for j := range k {
				qp[j] = (qp[j] + diff*q[t*k+j]) / (1 + diff)
				p[j] /= 1 + diff
			}
		}
	}
}
