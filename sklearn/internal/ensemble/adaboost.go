package ensemble

import (
	"cmp"
	"math"
	"slices"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// AdaBoost is AdaBoostClassifier and AdaBoostRegressor: models with a weight each.
type AdaBoost struct {
	group
	weights []float64
	// The fields below are for the classifier.
	real    bool // algorithm SAMME.R, which uses probabilities
	against bool // since 1.3.1, a vote counts against the other classes
	early   bool // until 0.21, predict_proba was computed in another way
	total   float64
}

// NewAdaBoost returns an empty AdaBoost for a record to be read into.
func NewAdaBoost(class string) *AdaBoost { return &AdaBoost{group: group{class: class}} }

// ReadAdaBoost reads the attributes of an AdaBoost from a file.
func ReadAdaBoost(a *estimator.Attributes) estimator.Estimator {
	b := NewAdaBoost(a.Class)
	b.read(a, "estimators_")
	b.weights = a.Vector("estimator_weights_", -1)
	if n := len(b.members); a.Err() == nil && n < len(b.weights) {
		b.weights = b.weights[:n] // training stopped early
	}
	if a.Class == "AdaBoostClassifier" {
		b.labels = a.Labels("classes_")
		a.Agrees("n_classes_", b.labels.Len())
		switch algorithm := a.Text("algorithm", "SAMME"); algorithm {
		case "SAMME.R":
			b.real = true
		case "SAMME", "deprecated":
		default:
			a.Unsupported("algorithm="+algorithm, "use SAMME")
		}
		b.against, b.early = a.AtLeastPatch(1, 3, 1), !a.AtLeast(0, 22)
	}
	return b
}

func (b *AdaBoost) Fields(c *estimator.Codec) {
	b.fields(c)
	c.Floats(&b.weights)
	c.Bool(&b.real)
	c.Bool(&b.against)
	c.Bool(&b.early)
}

func (b *AdaBoost) Parameters() map[string]any { return b.parameters() }

func (b *AdaBoost) Check() error {
	if err := b.check(false); err != nil {
		return err
	}
	if len(b.weights) != len(b.members) || b.features < 1 {
		return estimator.Misfit("%s: %d weights for %d models", b.class, len(b.weights), len(b.members))
	}
	b.total = 0
	for _, w := range b.weights {
		b.total += w
	}
	for _, e := range b.members {
		if b.labels.Len() == 0 {
			if e.Outputs(estimator.Predict, b.features) != 1 {
				return estimator.Misfit("%s: %s predicts several values", b.class, e.Class())
			}
			continue
		}
		l := estimator.LabelsOf(e)
		if l == nil || !slices.Equal(l.Values, b.labels.Values) || !slices.Equal(l.Texts, b.labels.Texts) {
			return estimator.Misfit("%s: %s was trained with other classes", b.class, e.Class())
		}
		if n := e.Outputs(estimator.PredictProba, b.features); n != b.labels.Len() && (b.real || b.early) {
			return estimator.Misfit("%s: %s returns %d probabilities", b.class, e.Class(), n)
		}
	}
	return nil
}

func (b *AdaBoost) Outputs(m estimator.Method, _ int) int {
	switch k := b.labels.Len(); {
	case m == estimator.Predict:
		return 1
	case k == 0:
		return 0
	case m == estimator.PredictProba || m == estimator.PredictLogProba:
		return k
	case m == estimator.DecisionFunction && k <= 2:
		return 1
	case m == estimator.DecisionFunction:
		return k
	}
	return 0
}

func (b *AdaBoost) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckFinite(b.class); err != nil {
		return err
	}
	k := b.labels.Len()
	switch {
	case k == 0:
		return b.median(x, out.Col(0), ws)
	case k == 1:
		for c := range out.Cols {
			for r := range out.Col(c) {
				out.Col(c)[r] = map[estimator.Method]float64{estimator.Predict: b.labels.Values[0], estimator.PredictProba: 1}[m]
			}
		}
		return nil
	case m == estimator.DecisionFunction:
		return b.decide(x, out, ws)
	case m == estimator.Predict:
		d := ws.Block(x, b.Outputs(estimator.DecisionFunction, x.Cols))
		if err := b.decide(x, d, ws); err != nil {
			return err
		}
		estimator.Choose(d, out.Col(0), &b.labels)
		return nil
	}
	if err := b.probabilities(x, out, ws); err != nil {
		return err
	}
	if m == estimator.PredictLogProba {
		estimator.Log(out)
	}
	return nil
}

// votes writes the weighted sum of the models' votes, or of the values that their
// probabilities count as.
func (b *AdaBoost) votes(x, sum *estimator.Block, ws *estimator.Workspace) error {
	k := b.labels.Len()
	clear(sum.X)
	vote, odds := ws.Block(x, 1), ws.Block(x, k)
	for i, e := range b.members {
		if b.real {
			if err := e.Compute(estimator.PredictProba, x, odds, ws); err != nil {
				return err
			}
			addLogs(odds, sum)
			continue
		}
		if err := e.Compute(estimator.Predict, x, vote, ws); err != nil {
			return err
		}
		w, other := b.weights[i], 0.0
		if b.against {
			other = -1 / float64(k-1) * w
		}
		for c, label := range b.labels.Values {
			dst := sum.Col(c)
			for r, v := range vote.Col(0) {
				if v == label {
					dst[r] += w
				} else {
					dst[r] += other
				}
			}
		}
	}
	for c := range k {
		dst := sum.Col(c)
		for r := range dst {
			dst[r] /= b.total
		}
	}
	return nil
}

// addLogs adds the terms that algorithm SAMME.R computes from probabilities.
func addLogs(odds, sum *estimator.Block) {
	k := float64(odds.Cols)
	for r := range odds.Rows {
		total := 0.0
		for c := range odds.Cols {
			p := &odds.X[c*odds.Stride+r]
			*p = math.Log(max(*p, 0x1p-52))
			total += *p
		}
		for c := range odds.Cols {
			sum.X[c*sum.Stride+r] += (k - 1) * (odds.X[c*odds.Stride+r] - float64(1/k*total))
		}
	}
}

// decide is decision_function. For two classes it writes the difference of the two
// sums.
func (b *AdaBoost) decide(x, out *estimator.Block, ws *estimator.Workspace) error {
	if b.labels.Len() > 2 {
		return b.votes(x, out, ws)
	}
	sum := ws.Block(x, 2)
	if err := b.votes(x, sum, ws); err != nil {
		return err
	}
	for r, v := range sum.Col(1) {
		out.Col(0)[r] = -sum.Col(0)[r] + v
	}
	return nil
}

func (b *AdaBoost) probabilities(x, out *estimator.Block, ws *estimator.Workspace) error {
	k := b.labels.Len()
	if b.early {
		return b.earlyProbabilities(x, out, ws)
	}
	d := ws.Block(x, b.Outputs(estimator.DecisionFunction, x.Cols))
	if err := b.decide(x, d, ws); err != nil {
		return err
	}
	for c := range d.Cols {
		dst := d.Col(c)
		for r := range dst {
			if k == 2 {
				dst[r] /= 2
			} else {
				dst[r] /= float64(k - 1)
			}
		}
	}
	estimator.Softmax(d, out)
	return nil
}

func (b *AdaBoost) earlyProbabilities(x, out *estimator.Block, ws *estimator.Workspace) error {
	k := b.labels.Len()
	if b.real {
		if err := b.votes(x, out, ws); err != nil {
			return err
		}
	} else {
		clear(out.X[:k*out.Stride])
		one := ws.Block(x, k)
		for i, e := range b.members {
			if err := e.Compute(estimator.PredictProba, x, one, ws); err != nil {
				return err
			}
			for c := range k {
				for r, p := range one.Col(c) {
					out.Col(c)[r] += float64(p * b.weights[i])
				}
			}
		}
		for c := range k {
			for r := range out.Col(c) {
				out.Col(c)[r] /= b.total
			}
		}
	}
	for c := range k {
		for r, v := range out.Col(c) {
			out.Col(c)[r] = math.Exp(1 / float64(k-1) * v)
		}
	}
	estimator.Normalize(out, true)
	return nil
}

// median writes the weighted median of the models' predictions.
func (b *AdaBoost) median(x *estimator.Block, dst []float64, ws *estimator.Workspace) error {
	n := len(b.members)
	all := ws.Block(x, n)
	for i, e := range b.members {
		if err := e.Compute(estimator.Predict, x, ws.View(all, i, 1), ws); err != nil {
			return err
		}
	}
	order := ws.Int32s(n)
	for r := range dst {
		for i := range order {
			order[i] = int32(i)
		}
		slices.SortStableFunc(order, func(i, j int32) int { return cmp.Compare(all.X[int(i)*all.Stride+r], all.X[int(j)*all.Stride+r]) })
		total := 0.0
		for _, i := range order {
			total += b.weights[i]
		}
		sum := 0.0
		for _, i := range order {
			if sum += b.weights[i]; sum >= 0.5*total {
				dst[r] = all.X[int(i)*all.Stride+r]
				break
			}
		}
	}
	return nil
}
