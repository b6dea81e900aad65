package sklearn

import (
	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/compose"
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// MaxBytes is the largest file Load reads.
const MaxBytes = pickle.MaxBytes

const opPredict = "predict"

// Model is a fitted scikit-learn estimator, ready to predict. It comes from [Load] or
// from a [RecordReader]. It is immutable and safe for concurrent use. The zero Model
// has no methods, and an error is all it gives.
type Model struct {
	root     estimator.Estimator
	front    []estimator.Estimator // transformers before the last step
	last     estimator.Estimator
	detector estimator.Detector // last, if it is one
	labels   *estimator.Labels  // of a classifier
	features int
	names    featureNames
	width    int              // columns at the widest place between steps
	scoring  estimator.Method // what scores are made of; estimator.Methods for nothing

	file     *fileInfo // nil for a native record
	findings findings
}

// Method is one of the methods that scikit-learn's estimators have.
type Method = estimator.Method

// The methods. Which of them a model has, [Model.Methods] says.
const (
	Predict          = estimator.Predict
	DecisionFunction = estimator.DecisionFunction
	ScoreSamples     = estimator.ScoreSamples
	PredictProba     = estimator.PredictProba
	PredictLogProba  = estimator.PredictLogProba
	Transform        = estimator.Transform
)

// assemble finds a model's last step and what it can do.
func (m *Model) assemble(root estimator.Estimator) {
	m.root, m.last, m.front = root, root, m.front[:0]
	for {
		p, ok := m.last.(*compose.Pipeline)
		if !ok {
			break
		}
		chain := p.Chain()
		m.front = append(m.front, chain[:len(chain)-1]...)
		m.last = chain[len(chain)-1]
	}
	m.features = root.Features()
	m.width = m.features
	for in, i := max(1, m.features), 0; i < len(m.front); i++ {
		in = m.front[i].Outputs(Transform, in)
		m.width = max(m.width, in)
	}
	m.detector, _ = m.last.(estimator.Detector)
	m.labels = nil
	if c, ok := m.last.(estimator.Classifier); ok {
		m.labels = c.Labels()
	}
	m.scoring = estimator.Methods
	switch {
	case m.outputs(DecisionFunction) > 0:
		m.scoring = DecisionFunction
	case m.outputs(PredictProba) > 0:
		m.scoring = PredictProba
	}
}

func (m *Model) outputs(method Method) int {
	if method >= estimator.Methods || m.root == nil {
		return 0
	}
	return m.root.Outputs(method, max(1, m.features))
}

// NumFeatures is the number of columns a row must have; 0 if the model takes any
// number of columns, as a Normalizer alone may.
func (m *Model) NumFeatures() int { return m.features }

// OutlierDetector reports whether predictions are +1 for an inlier and −1 for an
// outlier.
func (m *Model) OutlierDetector() bool { return m.detector != nil }

// Classes are the labels of a classifier as text, in scikit-learn's order; nil
// for anything else.
func (m *Model) Classes() []string {
	if m.labels == nil {
		return nil
	}
	return m.labels.All()
}

// Methods are those that the model has.
func (m *Model) Methods() []Method {
	var out []Method
	for method := range estimator.Methods {
		if m.outputs(method) > 0 {
			out = append(out, method)
		}
	}
	return out
}

// able reports whether the model has any method.
func (m *Model) able() bool {
	for method := range estimator.Methods {
		if m.outputs(method) > 0 {
			return true
		}
	}
	return false
}

// Outputs is how many columns a method gives; 0 if the model doesn't have it.
func (m *Model) Outputs(method Method) int { return m.outputs(method) }

// class is that of the last step, for messages.
func (m *Model) class() string {
	if m.last == nil {
		return "a Model that is empty, as Load and RecordReader make none,"
	}
	return m.last.Class()
}

// Scratch is working memory for PredictInto, PredictColumns and Call, reusable between calls and
// models, by one goroutine at a time. The zero value is ready.
type Scratch struct{ ws estimator.Workspace }

// PredictInto predicts rows × NumFeatures() values, row-major. It writes each row's
// prediction as scikit-learn's predict gives it: +1 and −1 for an outlier
// detector; the label, if labels are numbers, else its place in Classes; or the
// value. It writes into score, which has nothing to do with scikit-learn's method of
// that name,
//
//   - what decision_function gives, of several columns the largest, or
//   - where there is none, predict_proba: of two classes that of the second, of
//     more the largest, or
//   - NaN where there is neither, as for regressors.
//
// Either may be nil; otherwise they hold at least rows values. x is not changed.
//
// What scikit-learn refuses with a ValueError, such as NaN for most estimators,
// gives an error of kind Invalid that names row and feature, both counted from 0;
// what was written until then means nothing.
//
// A nil scratch is allowed. With a scratch that was used before for a model as
// large, PredictInto allocates nothing.
func (m *Model) PredictInto(x []float64, rows int, prediction, score []float64, scratch *Scratch) error {
	return m.predict(source{x: x, rows: rows}, prediction, score, scratch)
}

// PredictColumns is PredictInto of rows that lie column by column, columns[c][r] being
// feature c of row r. Where rows come so, it saves turning them twice: models are
// computed column by column. There must be NumFeatures columns of one length.
func (m *Model) PredictColumns(columns [][]float64, prediction, score []float64, scratch *Scratch) error {
	if len(columns) == 0 {
		return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "there is no column")
	}
	for c, column := range columns {
		if len(column) != len(columns[0]) {
			return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "column %d has %d rows, column 0 has %d", c, len(column), len(columns[0]))
		}
	}
	return m.predict(source{columns: columns, rows: len(columns[0])}, prediction, score, scratch)
}

func (m *Model) predict(from source, prediction, score []float64, scratch *Scratch) error {
	if n := m.outputs(Predict); n != 1 {
		return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "%s gives %d predictions a row instead of one", m.class(), n).
			WithHint("take models that predict one value; Call computes any method")
	}
	if (prediction != nil && len(prediction) < from.rows) || (score != nil && len(score) < from.rows) {
		return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "room for %d predictions and %d scores, but there are %d rows", len(prediction), len(score), from.rows)
	}
	return m.run(from, scratch, func(b *estimator.Block, ws *estimator.Workspace) error {
		p, s := sub(prediction, b.First, b.Rows), sub(score, b.First, b.Rows)
		if m.detector != nil {
			return m.detector.Decide(b, p, s, ws)
		}
		return m.predictBlock(b, p, s, ws)
	})
}

// predictBlock is PredictInto of a block for everything but detectors.
func (m *Model) predictBlock(b *estimator.Block, prediction, score []float64, ws *estimator.Workspace) error {
	if c, ok := m.last.(estimator.Chooser); ok && prediction != nil && score != nil && m.scoring < estimator.Methods {
		out := ws.Block(b, m.last.Outputs(m.scoring, b.Cols))
		if err := m.last.Compute(m.scoring, b, out, ws); err != nil {
			return err
		}
		c.Choose(out, prediction)
		m.toScore(out, score)
		return nil
	}
	if prediction != nil {
		out := ws.Block(b, 1)
		if err := m.last.Compute(Predict, b, out, ws); err != nil {
			return err
		}
		copy(prediction, out.Col(0))
	}
	if score == nil {
		return nil
	}
	if m.scoring == estimator.Methods {
		for i := range score {
			score[i] = nan
		}
		return nil
	}
	out := ws.Block(b, m.last.Outputs(m.scoring, b.Cols))
	if err := m.last.Compute(m.scoring, b, out, ws); err != nil {
		return err
	}
	m.toScore(out, score)
	return nil
}

// toScore picks a score of each row's decisions or probabilities.
func (m *Model) toScore(out *estimator.Block, score []float64) {
	switch {
	case out.Cols == 1:
		copy(score, out.Col(0))
	case out.Cols == 2 && m.scoring == PredictProba:
		copy(score, out.Col(1))
	default:
		copy(score, out.Col(0))
		for c := 1; c < out.Cols; c++ {
			for i, v := range out.Col(c) {
				score[i] = max(score[i], v)
			}
		}
	}
}

// Call computes one method for rows × NumFeatures() values, row-major, and writes
// rows × Outputs(method) values into out, row-major too. Errors are PredictInto's.
func (m *Model) Call(method Method, x []float64, rows int, out []float64, scratch *Scratch) error {
	cols := m.outputs(method)
	if cols == 0 {
		return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "%s has no method %s", m.class(), method)
	}
	if m.features == 0 && rows > 0 {
		cols = m.root.Outputs(method, len(x)/rows)
	}
	if len(out) < rows*cols {
		return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "room for %d values, but %s gives %d rows of %d", len(out), method, rows, cols)
	}
	return m.run(source{x: x, rows: rows}, scratch, func(b *estimator.Block, ws *estimator.Workspace) error {
		result := ws.Block(b, cols)
		if err := m.last.Compute(method, b, result, ws); err != nil {
			return err
		}
		for c := range cols {
			for i, v := range result.Col(c) {
				out[(b.First+i)*cols+c] = v
			}
		}
		return nil
	})
}

// wide is the number of columns from which rows go through the steps one by one,
// so that working memory stays small.
const wide = 1 << 14

// source is rows: in x, row-major, or in columns.
type source struct {
	x       []float64
	columns [][]float64
	rows    int
}

// cols gives the number of columns, for a model that takes features of them or,
// if that is 0, any number.
func (s *source) cols(features int) (int, error) {
	switch {
	case s.columns != nil && (len(s.columns) == features || features == 0):
		return len(s.columns), nil
	case s.columns != nil:
		return 0, fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "%d columns are given, the model takes %d", len(s.columns), features)
	}
	cols := features
	if cols == 0 && s.rows > 0 {
		cols = len(s.x) / s.rows
	}
	if s.rows < 0 || len(s.x) != s.rows*cols || (s.rows > 0 && cols == 0) {
		return 0, fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "%d values are not %d rows of %d features", len(s.x), s.rows, cols)
	}
	return cols, nil
}

// fill copies some rows into a block, and zeros into its padding.
func (s *source) fill(b *estimator.Block) {
	if s.columns == nil {
		kernel.Transpose(b.X, b.Stride, s.x[b.First*b.Cols:(b.First+b.Rows)*b.Cols], b.Rows, b.Cols)
	}
	for c := range b.Cols {
		lanes := b.Lanes(c)
		if s.columns != nil {
			copy(lanes, s.columns[c][b.First:b.First+b.Rows])
		}
		clear(lanes[b.Rows:])
	}
}

// run passes blocks of rows through the steps before the last.
func (m *Model) run(from source, scratch *Scratch, last func(*estimator.Block, *estimator.Workspace) error) error {
	cols, err := from.cols(m.features)
	if err != nil {
		return err
	}
	if scratch == nil {
		scratch = new(Scratch)
	}
	ws := &scratch.ws
	step := estimator.BlockRows
	if max(cols, m.width) > wide {
		step = 1
	}
	for first := 0; first < from.rows; first += step {
		n := min(step, from.rows-first)
		ws.Reset()
		b := ws.NewBlock(n, cols, first)
		from.fill(b)
		b, err := compose.Forward(m.front, m.last, b, ws)
		if err != nil {
			return err
		}
		if err := last(b, ws); err != nil {
			return err
		}
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
