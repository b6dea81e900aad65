package ensemble

import (
	"slices"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// Threshold is FixedThresholdClassifier and TunedThresholdClassifierCV: a classifier of
// two classes that compares its member's decision or probability with its own
// threshold.
type Threshold struct {
	people
	method    int     // the member's method: DecisionFunction or PredictProba
	threshold float64 // a score of at least this value means the positive class
	positive  int     // the index of the positive class
}

// NewThreshold returns an empty Threshold for a record to be read into.
func NewThreshold(class string) *Threshold { return &Threshold{people: people{group{class: class}}} }

// ReadThreshold reads the attributes of a Threshold from a file.
func ReadThreshold(a *estimator.Attributes) estimator.Estimator {
	t := NewThreshold(a.Class)
	t.features = a.Features()
	fitted := a.FirstOf("estimator_", "estimator")
	member := a.Child(fitted)
	if member == nil {
		return t
	}
	t.members, t.names = []estimator.Estimator{member}, []string{fitted}
	if t.features == 0 {
		t.features = member.Features()
	}
	l := estimator.LabelsOf(member)
	if l == nil || l.Len() != 2 {
		a.Fail("%s of two classes is missing", fitted)
		return t
	}
	t.labels = *l
	in := max(1, t.features)
	switch method := a.Text("response_method", "auto"); {
	case method == "predict_proba", method == "auto" && member.Outputs(estimator.PredictProba, in) > 0:
		t.method, t.threshold = int(estimator.PredictProba), 0.5
	case method == "decision_function", method == "auto":
		t.method = int(estimator.DecisionFunction)
	default:
		a.Unsupported("response_method="+method, "use auto, predict_proba or decision_function")
	}
	if member.Outputs(estimator.Method(t.method), in) == 0 {
		a.Unsupported("response_method="+estimator.Method(t.method).String()+" of "+member.Class(), "use response_method=auto")
	}
	if a.Class == "TunedThresholdClassifierCV" {
		t.threshold = a.Float("best_threshold_")
		t.tuned(a)
		return t
	}
	if text, ok := a.Graph().Text(a.Value("threshold")); !ok || string(text) != "auto" {
		t.threshold = a.Float("threshold")
	}
	t.label(a, a.Value("pos_label"))
	return t
}

// Scores of labels have either a parameter pos_label, which is 1 by default, or no such
// parameter.
var (
	withPositive    = []string{"f1_score", "fbeta_score", "precision_score", "recall_score", "jaccard_score"}
	withoutPositive = []string{"accuracy_score", "balanced_accuracy_score", "matthews_corrcoef", "cohen_kappa_score"}
)

// tuned finds the positive class of the score that the threshold was tuned for.
func (t *Threshold) tuned(a *estimator.Attributes) {
	a.Nested(a.Value("_curve_scorer"), "_curve_scorer", func(in *estimator.Attributes) {
		g := in.Graph()
		for e := g.Entries(in.Value("_kwargs")); ; {
			key, v, ok := e.Pair()
			if !ok {
				break
			}
			if string(key) == "pos_label" {
				t.label(in, v)
				return
			}
		}
		score := "a function"
		if f := g.Global(in.Value("_score_func")); f != nil {
			score = f.Name
		}
		switch {
		case slices.Contains(withPositive, score):
			t.number(in, 1)
		case slices.Contains(withoutPositive, score):
			t.last()
		default:
			in.Unsupported("scoring by "+score, "save estimator_ and best_threshold_ as a FixedThresholdClassifier")
		}
	})
}

// last sets the positive class to the second class, for scores without a pos_label.
func (t *Threshold) last() { t.positive = 1 }

// label sets the positive class to a pos_label.
func (t *Threshold) label(a *estimator.Attributes, v pickle.Value) {
	g := a.Graph()
	if v == 0 || v.Kind() == pickle.KindNone {
		t.last()
		return
	}
	if text, ok := g.Text(v); ok {
		if t.positive = slices.Index(t.labels.Texts, string(text)); t.positive < 0 {
			a.Fail("pos_label %q isn't one of the classes", pickle.Clean(text))
			t.positive = 0
		}
		return
	}
	n, ok := g.Number(v)
	if b, isBool := g.Boolean(v); isBool && v.Kind() == pickle.KindBool {
		if n, ok = 0, true; b {
			n = 1
		}
	}
	if !ok {
		a.Fail("pos_label is %s", g.Describe(v))
		return
	}
	t.number(a, n)
}

func (t *Threshold) number(a *estimator.Attributes, n float64) {
	if t.positive = slices.Index(t.labels.Values, n); t.positive < 0 || t.labels.Texts != nil {
		a.Fail("pos_label %v isn't one of the classes", n)
		t.positive = 0
	}
}

// Fields implements estimator.Estimator, as do the methods below.
func (t *Threshold) Fields(c *estimator.Codec) {
	t.fields(c)
	c.Int(&t.method)
	c.Float(&t.threshold)
	c.Int(&t.positive)
}

func (t *Threshold) Parameters() map[string]any {
	p := t.parameters()
	p["threshold"] = t.threshold
	p["response_method"] = estimator.Method(t.method).String()
	return p
}

func (t *Threshold) Check() error {
	if err := t.check(false); err != nil {
		return err
	}
	in, cols := max(1, t.features), 1
	if t.method == int(estimator.PredictProba) {
		cols = 2
	}
	if len(t.members) != 1 || t.labels.Len() != 2 || t.positive > 1 || t.method >= int(estimator.Methods) ||
		t.members[0].Outputs(estimator.Method(t.method), in) != cols {
		return estimator.Misfit("%s: %s of two classes has no %s", t.class, t.members[0].Class(), estimator.Method(t.method))
	}
	return nil
}

func (t *Threshold) Outputs(m estimator.Method, in int) int {
	switch m {
	case estimator.Predict:
		return 1
	case estimator.DecisionFunction, estimator.PredictProba, estimator.PredictLogProba:
		return t.members[0].Outputs(m, in)
	}
	return 0
}

func (t *Threshold) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if m != estimator.Predict {
		return t.members[0].Compute(m, x, out, ws)
	}
	method := estimator.Method(t.method)
	scores := ws.Block(x, t.members[0].Outputs(method, x.Cols))
	if err := t.members[0].Compute(method, x, scores, ws); err != nil {
		return err
	}
	score := scores.Col(0)
	if method == estimator.PredictProba {
		score = scores.Col(t.positive)
	} else if t.positive == 0 {
		for r, v := range score {
			score[r] = -v
		}
	}
	for r, v := range score {
		out.Col(0)[r] = t.labels.Values[1-t.positive]
		if v >= t.threshold {
			out.Col(0)[r] = t.labels.Values[t.positive]
		}
	}
	return nil
}
