package compose

import (
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// ReadSearch reads GridSearchCV and similar classes. Only the estimator that the search
// found is kept.
func ReadSearch(a *estimator.Attributes) estimator.Estimator {
	if !a.Has("best_estimator_") {
		a.Unsupported("refit=False", "train it with refit=True, and save it or its best_estimator_")
		return nil
	}
	return a.Instead("best_estimator_")
}

// ReadFrozen reads FrozenEstimator, which returns the results of the estimator in it.
func ReadFrozen(a *estimator.Attributes) estimator.Estimator { return a.Instead("estimator") }

// ReadRobust reads RANSACRegressor. Only its model of the inliers is kept.
func ReadRobust(a *estimator.Attributes) estimator.Estimator { return a.Instead("estimator_") }

// Target is TransformedTargetRegressor: a regressor whose predictions are transformed
// back.
type Target struct {
	regressor, transformer estimator.Estimator
	back                   estimator.Inverter // the transformer
}

// ReadTarget reads the attributes of a Target from a file.
func ReadTarget(a *estimator.Attributes) estimator.Estimator {
	t := &Target{regressor: a.Child("regressor_"), transformer: a.Child("transformer_")}
	if a.Err() == nil {
		if back, ok := t.transformer.(estimator.Inverter); !ok || !back.Invertible() {
			a.Unsupported("transformer="+t.transformer.Class()+" of targets", "use StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler or functions of NumPy")
		}
	}
	return t
}

func (t *Target) Class() string { return "TransformedTargetRegressor" }
func (t *Target) Features() int { return t.regressor.Features() }

func (t *Target) Outputs(m estimator.Method, in int) int {
	if m == estimator.Predict {
		return t.regressor.Outputs(m, in)
	}
	return 0
}

func (t *Target) Parameters() map[string]any { return map[string]any{} }

// Parts implements estimator.Parent.
func (t *Target) Parts() []estimator.Part {
	return []estimator.Part{{Name: "regressor_", Est: t.regressor}, {Name: "transformer_", Est: t.transformer}}
}

func (t *Target) Fields(c *estimator.Codec) {
	c.Child(&t.regressor)
	c.Child(&t.transformer)
}

func (t *Target) Check() error {
	in := max(1, t.regressor.Features())
	n := t.regressor.Outputs(estimator.Predict, in)
	back, ok := t.transformer.(estimator.Inverter)
	if f := t.transformer.Features(); n == 0 || !ok || !back.Invertible() || f > 0 && f != n {
		return estimator.Misfit("TransformedTargetRegressor: %s predicts %d values, but %s transforms %d", t.regressor.Class(), n, t.transformer.Class(), f)
	}
	t.back = back
	return nil
}

func (t *Target) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := t.regressor.Compute(m, x, out, ws); err != nil {
		return err
	}
	return t.back.Invert(out)
}
