package sklearn

import (
	"strconv"

	"github.com/fleetscore/fleetscore"
)

// Predict is for rows that lie in slices of their own, for when convenience counts
// more than speed: it is [Model.PredictInto] with results and working memory that it
// allocates.
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

// Label is a prediction as people read it: of a classifier its class, of anything
// else the number.
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
