package sklearn

import (
	"strconv"

	"github.com/fleetscore/fleetscore"
)

// Predict returns the prediction and the score of each row, as [Model.PredictInto]
// writes them. Each row is a slice of its own with [Model.NumFeatures] values. Predict
// is simple to call, but it allocates the results and the working memory at each call.
func (m *Model) Predict(rows [][]float64) (predictions, scores []float64, err error) {
	var x []float64
	want := m.features
	for i, r := range rows {
		if i == 0 && want == 0 {
			want = len(r)
		}
		if len(r) != want {
			return nil, nil, fleetscore.Errorf(fleetscore.Invalid, opPredict, "", "row %d has %d features instead of %d", i, len(r), want)
		}
		x = append(x, r...)
	}
	predictions, scores = make([]float64, len(rows)), make([]float64, len(rows))
	if err := m.PredictInto(x, len(rows), predictions, scores, nil); err != nil {
		return nil, nil, err
	}
	return predictions, scores, nil
}

// Label returns a prediction as text: a classifier's class name, or the number of any
// other model.
func (m *Model) Label(prediction float64) string {
	if m.labels != nil {
		for i, v := range m.labels.Values {
			if v == prediction {
				return m.labels.Text(i)
			}
		}
	}
	return strconv.FormatFloat(prediction, 'g', -1, 64)
}
