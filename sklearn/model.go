package sklearn

import (
	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/compose"
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// MaxBytes is the size of the largest file that Load reads.
const MaxBytes = pickle.MaxBytes

const opPredict = "predict"

// Model is a fitted scikit-learn estimator that can predict. [Load] and
// [RecordReader.Read] return models. A model is immutable and safe for concurrent use.
// The zero Model has no methods; its predictions return an error.
type Model struct {
	root     estimator.Estimator
	front    []estimator.Estimator // the transformers before the last step
	last     estimator.Estimator
	detector estimator.Detector // the last step if it is an outlier detector, else nil
	labels   *estimator.Labels  // a classifier's labels, else nil
	features int
	names    featureNames
	width    int              // the largest number of columns between two steps
	scoring  estimator.Method // the method that scores come from; estimator.Methods if there is none

	file     *fileInfo // nil if the model was read from a native record
	findings findings
}

// Method is a method of scikit-learn's estimators.
type Method = estimator.Method

// The methods. [Model.Methods] returns those that a model has.
const (
	Predict          = estimator.Predict
	DecisionFunction = estimator.DecisionFunction
	ScoreSamples     = estimator.ScoreSamples
	PredictProba     = estimator.PredictProba
	PredictLogProba  = estimator.PredictLogProba
	Transform        = estimator.Transform
)

// assemble sets the model's last step and everything that depends on it.
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

// NumFeatures returns the number of columns that a row must have, or 0 if the model
// takes any number of columns, such as a Normalizer without other steps.
func (m *Model) NumFeatures() int { return m.features }

// OutlierDetector reports whether the model's predictions are +1 for an inlier and −1
// for an outlier.
func (m *Model) OutlierDetector() bool { return m.detector != nil }

// Classes returns a classifier's labels as text, in scikit-learn's order, or nil if the
// model isn't a classifier.
func (m *Model) Classes() []string {
	if m.labels == nil {
		return nil
	}
	return m.labels.All()
}

// Methods returns the methods that the model has.
func (m *Model) Methods() []Method {
	var out []Method
	for method := range estimator.Methods {
		if m.outputs(method) > 0 {
			out = append(out, method)
		}
	}
	return out
}

// able reports whether the model has a method.
func (m *Model) able() bool {
	for method := range estimator.Methods {
		if m.outputs(method) > 0 {
			return true
		}
	}
	return false
}

// Outputs returns the number of columns that a method writes for each row, or 0 if the
// model doesn't have the method.
func (m *Model) Outputs(method Method) int { return m.outputs(method) }

// class returns the class of the last step, for messages.
func (m *Model) class() string {
	if m.last == nil {
		return "an empty Model (only Load and RecordReader return usable models)"
	}
	return m.last.Class()
}

// Scratch is working memory for PredictInto, PredictColumns and Call. It can be used
// again for other calls and other models, by one goroutine at a time. The zero value is
// ready.
type Scratch struct{ ws estimator.Workspace }

// PredictInto predicts rows. x holds rows × NumFeatures() values, row after row.
//
// prediction receives what scikit-learn's predict returns for each row:
//
//   - for an outlier detector, +1 for an inlier and −1 for an outlier;
//   - for a classifier, the label if labels are numbers, else the label's index in Classes;
//   - for any other model, the predicted value.
//
// score receives the decision value or a probability of each row. It has nothing to do with
// scikit-learn's method "score". It is
//
//   - the value of decision_function, or the largest value if it returns several columns, for
//     a model with this method;
//   - else, for a model with predict_proba: the probability of the second class for two
//     classes, and the largest probability for more classes;
//   - else NaN, as for regressors.
//
// Each of prediction and score may be nil; otherwise it must have room for one value
// per row. x isn't changed.
//
// If a row has values that scikit-learn refuses with a ValueError, such as NaN for most
// estimators, PredictInto returns an error of kind Invalid that names the row and the
// feature, both counted from 0. Then the contents of prediction and score are
// undefined.
//
// scratch may be nil. If scratch was used before for a model of this size, PredictInto
// allocates nothing.
func (m *Model) PredictInto(x []float64, rows int, prediction, score []float64, scratch *Scratch) error {
	return m.predict(source{x: x, rows: rows}, prediction, score, scratch)
}

// PredictColumns is PredictInto for values that are stored column by column:
// columns[c][r] is feature c of row r. Models are computed column by column, so
// PredictColumns is faster for such values. There must be NumFeatures columns, all of
// the same length.
func (m *Model) PredictColumns(columns [][]float64, prediction, score []float64, scratch *Scratch) error {
	if len(columns) == 0 {
		return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "there are no columns; the model needs at least one")
	}
	for c, column := range columns {
		if len(column) != len(columns[0]) {
			return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "column %d has %d rows, but column 0 has %d", c, len(column), len(columns[0]))
		}
	}
	return m.predict(source{columns: columns, rows: len(columns[0])}, prediction, score, scratch)
}

func (m *Model) predict(from source, prediction, score []float64, scratch *Scratch) error {
	if n := m.outputs(Predict); n != 1 {
		return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "%s predicts %d values for each row instead of one", m.class(), n).
			WithHint("use a model that predicts one value for each row, or use Call, which computes any method")
	}
	if (prediction != nil && len(prediction) < from.rows) || (score != nil && len(score) < from.rows) {
		return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "there is room for %d predictions and %d scores, but there are %d rows", len(prediction), len(score), from.rows)
	}
	return m.run(from, scratch, func(b *estimator.Block, ws *estimator.Workspace) error {
		p, s := sub(prediction, b.First, b.Rows), sub(score, b.First, b.Rows)
		if m.detector != nil {
			return m.detector.Decide(b, p, s, ws)
		}
		return m.predictBlock(b, p, s, ws)
	})
}

// predictBlock is PredictInto for a block of rows, for every model but outlier
// detectors.
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

// toScore writes one score for each row of decisions or probabilities.
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

// Call computes one method. x holds rows × NumFeatures() values, row after row. Call
// writes rows × Outputs(method) values into out, also row after row. It returns the
// same errors as PredictInto.
func (m *Model) Call(method Method, x []float64, rows int, out []float64, scratch *Scratch) error {
	cols := m.outputs(method)
	if cols == 0 {
		return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "%s has no method %s", m.class(), method)
	}
	if m.features == 0 && rows > 0 {
		cols = m.root.Outputs(method, len(x)/rows)
	}
	if len(out) < rows*cols {
		return fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "there is room for %d values, but %s returns %d rows of %d values", len(out), method, rows, cols)
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

// wide is the number of columns from which rows pass through the steps one at a time.
// It keeps working memory small.
const wide = 1 << 14

// source holds the rows of a call, either in x, row after row, or in columns.
type source struct {
	x       []float64
	columns [][]float64
	rows    int
}

// cols returns the number of columns. features is the number that the model takes, or 0
// if it takes any number.
func (s *source) cols(features int) (int, error) {
	switch {
	case s.columns != nil && (len(s.columns) == features || features == 0):
		return len(s.columns), nil
	case s.columns != nil:
		return 0, fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "there are %d columns, but the model takes %d", len(s.columns), features)
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

// fill copies the block's rows into the block, and writes zeros into its padding.
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

// run passes blocks of rows through all steps before the last, then calls last with
// each.
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

// sub returns a[first:first+n], or nil if a is nil.
func sub(a []float64, first, n int) []float64 {
	if a == nil {
		return nil
	}
	return a[first : first+n]
}
