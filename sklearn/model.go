package sklearn

import (
	"math"

	"github.com/fleetscore/fleetscore"
)

// MaxBytes is the largest file Load reads.
const MaxBytes = 1<<31 - 1

const (
	opLoad  = "load model"
	opScore = "score"
)

// Model is a fitted scikit-learn estimator, ready to score. It is immutable and
// safe for concurrent use.
type Model struct {
	chain    []transformer
	last     predictor
	features int
	protocol int
	parts    []part // all steps, also those that do nothing
	versions []string
	names    []string
}

// Load reads a pickled scikit-learn estimator. The bytes are not kept. An error
// is a [fleetscore.Error] of kind Invalid that names the class, attribute or
// byte offset at fault and says what to do.
func Load(data []byte) (*Model, error) {
	if len(data) > MaxBytes {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the file has %d bytes, more than the limit of %d", len(data), MaxBytes).
			WithHint("check that this is a model")
	}
	if err := recognise(data); err != nil {
		return nil, err
	}
	g, root, err := unpickle(data)
	if err != nil {
		return nil, err
	}
	defer g.release()
	return build(g, root)
}

// NumFeatures is the number of columns a row must have.
func (m *Model) NumFeatures() int { return m.features }

// OutlierDetector reports whether predictions are +1 for an inlier and −1 for an
// outlier.
func (m *Model) OutlierDetector() bool { return m.last.detector() }

// Info describes the model. It is made anew by each call, so the caller may keep
// and change it.
func (m *Model) Info() Info {
	i := Info{
		Format:          "pickle",
		Protocol:        m.protocol,
		Steps:           make([]Step, len(m.parts)),
		Versions:        append([]string{}, m.versions...),
		Features:        m.features,
		FeatureNames:    append([]string{}, m.names...),
		OutlierDetector: m.last.detector(),
		Health:          m.health(),
	}
	for n, p := range m.parts {
		i.Steps[n] = Step{Name: p.name, Class: p.est.class(), Version: p.version, Parameters: p.est.parameters()}
		if svm, ok := p.est.(*oneClassSVM); ok {
			i.SupportVectors += len(svm.coef)
		}
	}
	return i
}

// Scratch is working memory for Score, reusable between calls and models, by one
// goroutine at a time. The zero value is ready.
type Scratch struct {
	batch batch
	x     []float64
	sum   [blockRows]float64
}

// batch is a block of rows, row-major, that steps may change in place.
type batch struct {
	x     []float64
	rows  int
	cols  int
	first int // number of its first row within the call, for messages
}

// transformer is a fitted step that changes rows, but not their width.
type transformer interface {
	estimator
	transform(b *batch)
}

// predictor is a fitted last step.
type predictor interface {
	estimator
	detector() bool
	// predict writes one prediction and one score per row; either may be nil.
	predict(b *batch, prediction, score []float64, s *Scratch)
}

// blockRows is how many rows go through all steps at once: enough to amortise
// the calls, few enough for the block to stay in the first cache.
const blockRows = 256

// Score scores rows × NumFeatures() values, row-major. It writes each row's
// prediction as scikit-learn's predict gives it (+1 and −1 for an outlier
// detector), and its decision_function into score. Either may be nil; otherwise
// they hold at least rows values. x is not changed.
//
// NaN and infinity, which scikit-learn refuses with a ValueError, give an error
// of kind Invalid that names row and feature, both counted from 0; what was
// written until then means nothing.
//
// A nil scratch is allowed. With a scratch that was used before for a model of
// as many features, Score allocates nothing.
func (m *Model) Score(x []float64, rows int, prediction, score []float64, scratch *Scratch) error {
	cols := m.features
	if rows < 0 || len(x)%cols != 0 || len(x)/cols != rows {
		return fleetscore.Errorf(fleetscore.Invalid, opScore, "", "%d values are not %d rows of %d features", len(x), rows, cols)
	}
	if (prediction != nil && len(prediction) < rows) || (score != nil && len(score) < rows) {
		return fleetscore.Errorf(fleetscore.Invalid, opScore, "", "room for %d predictions and %d scores, but there are %d rows", len(prediction), len(score), rows)
	}
	if scratch == nil {
		scratch = new(Scratch)
	}
	if need := min(rows, blockRows) * cols; cap(scratch.x) < need {
		scratch.x = make([]float64, need)
	}
	for first := 0; first < rows; first += blockRows {
		n := min(blockRows, rows-first)
		b := &scratch.batch
		*b = batch{x: scratch.x[:n*cols], rows: n, cols: cols, first: first}
		copy(b.x, x[first*cols:])
		if err := b.checkFinite(""); err != nil {
			return err
		}
		for _, t := range m.chain {
			t.transform(b)
			if err := b.checkFinite(t.class()); err != nil {
				return err
			}
		}
		m.last.predict(b, sub(prediction, first, n), sub(score, first, n), scratch)
	}
	return nil
}

// sub is a[first:first+n], or nil for a nil a.
func sub(a []float64, first, n int) []float64 {
	if a == nil {
		return nil
	}
	return a[first : first+n]
}

// checkFinite refuses NaN and infinity. Subtracting a finite number from itself
// gives 0, anything else NaN, so the sum stays 0 while all are finite.
func (b *batch) checkFinite(class string) error {
	var sum float64
	for _, v := range b.x {
		sum += v - v
	}
	if sum == 0 {
		return nil
	}
	where := "the input"
	if class != "" {
		where = "what " + class + " makes of the input"
	}
	for i, v := range b.x {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fleetscore.Errorf(fleetscore.Invalid, opScore, "", "%s holds %v in row %d, feature %d; scikit-learn refuses it too", where, v, b.first+i/b.cols, i%b.cols).
				WithHint("drop the row or fill the value before scoring")
		}
	}
	return nil
}
