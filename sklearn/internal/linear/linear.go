// Package linear computes scikit-learn's linear models: a weighted sum of the columns,
// and each class's results from it.
package linear

import (
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// model holds coefficients and intercepts.
type model struct {
	features  int
	coef      []float64 // outputs × features
	intercept []float64 // one for each output
}

// read reads coef_, which has one or two dimensions, and intercept_, which may be one
// number.
func (m *model) read(a *estimator.Attributes) {
	cols, outputs := -1, 1
	if a.Features() > 0 {
		cols = a.Features()
	}
	if a.Dims("coef_") == 0 { // early releases write this for one feature
		m.coef, m.features = []float64{a.Float("coef_")}, 1
	} else if a.Dims("coef_") == 1 {
		m.coef = a.Vector("coef_", cols)
		m.features = len(m.coef)
	} else {
		m.coef, outputs, m.features = a.Matrix("coef_", -1, cols)
	}
	if a.Count("intercept_") == outputs && outputs > 1 {
		m.intercept = a.Vector("intercept_", outputs)
		return
	}
	b := a.FloatOr("intercept_", 0)
	if a.Err() != nil {
		return
	}
	if err := a.Graph().Charge(8 * outputs); err != nil {
		a.Fail("%w", err)
		return
	}
	m.intercept = make([]float64, outputs)
	for i := range m.intercept {
		m.intercept[i] = b
	}
}

func (m *model) Features() int { return m.features }

func (m *model) fields(c *estimator.Codec) {
	c.Int(&m.features)
	c.Floats(&m.coef)
	c.Floats(&m.intercept)
}

func (m *model) check(class string) error {
	if m.features < 1 || len(m.intercept) == 0 || len(m.coef) != m.features*len(m.intercept) {
		return estimator.Misfit("%s: %d coefficients and %d intercepts don't fit %d features", class, len(m.coef), len(m.intercept), m.features)
	}
	return nil
}

// sums writes the weighted sums, one column for each output.
func (m *model) sums(class string, x, out *estimator.Block) error {
	if err := x.CheckFinite(class); err != nil {
		return err
	}
	for o, b := range m.intercept {
		dst := out.Lanes(o)
		clear(dst)
		for c, w := range m.coef[o*m.features : (o+1)*m.features] {
			kernel.AddScaled(dst, x.Lanes(c), w)
		}
		for i := range dst {
			dst[i] += b
		}
	}
	return nil
}

// Regressor is a model whose prediction is the weighted sum, or e to that power.
type Regressor struct {
	model
	class string
	log   bool // predictions are e to the power of the sum, for PoissonRegressor and similar classes
}

// ReadRegressor reads the attributes of any linear regressor.
func ReadRegressor(a *estimator.Attributes) estimator.Estimator {
	r := NewRegressor(a.Class)
	r.read(a)
	switch a.Class {
	case "PoissonRegressor", "GammaRegressor", "TweedieRegressor":
		link, _ := a.LossOf("_link_instance") // until 1.0
		if link == "" {
			_, link = a.LossOf("_base_loss")
		}
		switch link {
		case "LogLink":
			r.log = true
		case "IdentityLink":
		case "":
			a.Fail("_base_loss is missing, or has no link")
		default:
			a.Unsupported("link="+link, "use auto, identity or log")
		}
	}
	return r
}

// NewRegressor returns an empty Regressor for a record to be read into.
func NewRegressor(class string) *Regressor { return &Regressor{class: class} }

// Class implements estimator.Estimator, as do the methods below.
func (r *Regressor) Class() string { return r.class }

func (r *Regressor) Outputs(m estimator.Method, _ int) int {
	if m == estimator.Predict {
		return len(r.intercept)
	}
	return 0
}

func (r *Regressor) Parameters() map[string]any {
	return map[string]any{"outputs": len(r.intercept)}
}
func (r *Regressor) Check() error { return r.check(r.class) }

func (r *Regressor) Fields(c *estimator.Codec) {
	r.fields(c)
	c.Bool(&r.log)
}

func (r *Regressor) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	err := r.sums(r.class, x, out)
	if r.log {
		for c := range out.Cols {
			for i, v := range out.Col(c) {
				out.Col(c)[i] = estimator.Exp(v)
			}
		}
	}
	return err
}

// probability is how a classifier computes probabilities from its decisions.
type probability int

const (
	none     probability = iota
	logistic             // one sigmoid for each class, scaled so that the sum is 1
	softmax
	huber // for SGDClassifier(loss="modified_huber")
)

// Classifier is a model that chooses the class with the largest weighted sum. For two
// classes, it chooses the second class if the sum is above 0.
type Classifier struct {
	model
	class  string
	labels estimator.Labels
	proba  probability
	// Whether probabilities that are all 0 become equal, as since release 1.9. Before,
	// they become NaN.
	uniform bool
}

// ReadClassifier reads the attributes of any linear classifier.
func ReadClassifier(a *estimator.Attributes) estimator.Estimator {
	s := NewClassifier(a.Class)
	s.read(a)
	if a.Has("_label_binarizer") { // RidgeClassifier has this, and classes_ is a property
		a.Nested(a.Value("_label_binarizer"), "_label_binarizer", func(in *estimator.Attributes) {
			in.OneLabel()
			s.labels = in.Labels("classes_")
		})
		if a.AtLeast(1, 8) && a.Has("classes_") { // classes_ is an attribute since then
			s.labels = a.Labels("classes_")
		}
	} else {
		s.labels = a.Labels("classes_")
	}
	s.uniform = a.AtLeast(1, 9)
	switch a.Class {
	case "LogisticRegression", "LogisticRegressionCV":
		s.proba = s.logisticRegression(a)
	case "SGDClassifier":
		switch a.Text("loss", "hinge") {
		case "log", "log_loss":
			s.proba = logistic
		case "modified_huber":
			s.proba = huber
		}
	}
	return s
}

// logisticRegression returns how predict_proba computes probabilities. In 0.19, one
// decision means a sigmoid. Until release 1.7 the parameter multi_class decides, and
// after it the number of classes.
func (s *Classifier) logisticRegression(a *estimator.Attributes) probability {
	classes := s.labels.Len()
	multi, solver := a.Text("multi_class", "auto"), a.Text("solver", "lbfgs")
	byDefault := multi == "auto" || multi == "deprecated"
	switch {
	case len(s.intercept) == 1 && !a.AtLeast(0, 20):
		return logistic
	case multi == "ovr" || multi == "warn" || classes <= 2 && byDefault || solver == "liblinear" && byDefault:
		return logistic
	case solver == "newton-cholesky" && byDefault && !a.AtLeast(1, 6): // before 1.6, one classifier for each class
		return logistic
	}
	return softmax
}

// NewClassifier returns an empty Classifier for a record to be read into.
func NewClassifier(class string) *Classifier { return &Classifier{class: class} }

func (s *Classifier) Class() string             { return s.class }
func (s *Classifier) Labels() *estimator.Labels { return &s.labels }

func (s *Classifier) Outputs(m estimator.Method, _ int) int {
	switch m {
	case estimator.Predict:
		return 1
	case estimator.DecisionFunction:
		return len(s.intercept)
	case estimator.PredictProba, estimator.PredictLogProba:
		if s.proba != none {
			return s.labels.Len()
		}
	}
	return 0
}

func (s *Classifier) Parameters() map[string]any {
	return map[string]any{"classes": s.labels.Len(), "probability": s.proba != none}
}

func (s *Classifier) Fields(c *estimator.Codec) {
	s.fields(c)
	s.labels.Fields(c)
	p := int(s.proba)
	c.Int(&p)
	s.proba = probability(p)
	c.Bool(&s.uniform)
}

func (s *Classifier) Check() error {
	if err := s.check(s.class); err != nil {
		return err
	}
	if err := s.labels.Check(s.class); err != nil {
		return err
	}
	if k, n := s.labels.Len(), len(s.intercept); (k != n && (k != 2 || n != 1)) || s.proba > huber {
		return estimator.Misfit("%s: %d classes don't fit %d decisions", s.class, k, n)
	}
	return nil
}

func (s *Classifier) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	d := out
	if m != estimator.DecisionFunction {
		d = ws.Block(x, len(s.intercept))
	}
	if err := s.sums(s.class, x, d); err != nil {
		return err
	}
	switch m {
	case estimator.Predict:
		estimator.Choose(d, out.Col(0), &s.labels)
	case estimator.PredictProba, estimator.PredictLogProba:
		switch s.proba {
		case logistic:
			estimator.Logistic(d, out, s.uniform)
		case huber:
			modifiedHuber(d, out)
		default:
			estimator.Softmax(d, out)
		}
		if m == estimator.PredictLogProba {
			estimator.Log(out)
		}
	}
	return nil
}

func modifiedHuber(d, out *estimator.Block) {
	for c := range d.Cols {
		to := out.Col(c)
		if d.Cols == 1 {
			to = out.Col(1)
		}
		for i, v := range d.Col(c) {
			to[i] = (min(max(v, -1), 1) + 1) / 2
		}
	}
	if d.Cols == 1 {
		for i, p := range out.Col(1) {
			out.Col(0)[i] = 1 - p
		}
		return
	}
	estimator.Normalize(out, true)
}

// SGDOneClassSVM is an outlier detector: a decision of at least 0 means an inlier.
type SGDOneClassSVM struct {
	model
	offset float64
}

// ReadSGDOneClassSVM reads the attributes of a SGDOneClassSVM from a file.
func ReadSGDOneClassSVM(a *estimator.Attributes) estimator.Estimator {
	s := &SGDOneClassSVM{offset: a.Float("offset_")}
	cols := -1
	if a.Features() > 0 {
		cols = a.Features()
	}
	s.coef = a.Vector("coef_", cols)
	s.features, s.intercept = len(s.coef), []float64{0}
	return s
}

func (s *SGDOneClassSVM) Class() string { return "SGDOneClassSVM" }

func (s *SGDOneClassSVM) Outputs(m estimator.Method, _ int) int {
	switch m {
	case estimator.Predict, estimator.DecisionFunction, estimator.ScoreSamples:
		return 1
	}
	return 0
}

func (s *SGDOneClassSVM) Parameters() map[string]any { return map[string]any{"offset": s.offset} }

func (s *SGDOneClassSVM) Fields(c *estimator.Codec) {
	s.fields(c)
	c.Float(&s.offset)
}

func (s *SGDOneClassSVM) Check() error {
	if len(s.intercept) != 1 {
		return estimator.Misfit("SGDOneClassSVM: %d decisions instead of one", len(s.intercept))
	}
	return s.check(s.Class())
}

func (s *SGDOneClassSVM) Decide(x *estimator.Block, prediction, score []float64, ws *estimator.Workspace) error {
	d := ws.Block(x, 1)
	if err := s.sums(s.Class(), x, d); err != nil {
		return err
	}
	for i, v := range d.Col(0) {
		v -= s.offset
		if score != nil {
			score[i] = v
		}
		if prediction != nil {
			prediction[i] = -1
			if v >= 0 {
				prediction[i] = 1
			}
		}
	}
	return nil
}

func (s *SGDOneClassSVM) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	switch m {
	case estimator.Predict:
		return s.Decide(x, out.Col(0), nil, ws)
	case estimator.ScoreSamples: // two roundings, as in scikit-learn
		err := s.Decide(x, nil, out.Col(0), ws)
		for i := range out.Col(0) {
			out.Col(0)[i] += s.offset
		}
		return err
	}
	return s.Decide(x, nil, out.Col(0), ws)
}

// Degenerate implements estimator.Detector. Without coefficients every decision is the
// same.
func (s *SGDOneClassSVM) Degenerate() (label int, why string) {
	for _, c := range s.coef {
		if c != 0 {
			return 0, ""
		}
	}
	label = -1
	if 0-s.offset >= 0 {
		label = 1
	}
	return label, "all its coefficients are 0; train it again with a smaller alpha or scaled features"
}

// zero reports whether all coefficients are 0.
func (m *model) zero() bool {
	for _, w := range m.coef {
		if w != 0 {
			return false
		}
	}
	return true
}

const allZero = "all its coefficients are 0; train it again with less regularisation or more varied rows"

// Constant implements estimator.Steady.
func (r *Regressor) Constant() (constant bool, why string) { return r.zero(), allZero }

// Constant implements estimator.Steady.
func (s *Classifier) Constant() (constant bool, why string) { return s.zero(), allZero }
