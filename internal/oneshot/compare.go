package oneshot

import (
	"context"
	"errors"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/compare"
)

// Compare scores the rows with the models of cfg.Models and with those of another folder,
// and compares what both say, sensor by sensor. It writes nothing; Out and Format of the
// Config have no meaning.
func Compare(ctx context.Context, cfg Config, other string) (*compare.Group, error) {
	if err := errors.Join(cfg.Missing.Validate(), cfg.FeaturesBy.Validate(), cfg.checkColumns()); err != nil {
		return nil, err
	}
	r := &run{cfg: cfg, m: &Manifest{Seconds: map[string]float64{}, CPUSeconds: map[string]float64{}}}
	in, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	var rows [2]*fleetscore.Predictions
	var items [2][]fleetscore.Item
	for i, folder := range []string{cfg.Models, other} {
		r.cfg.Models = folder
		models, err := r.models(ctx)
		if err != nil {
			return nil, err
		}
		result, err := r.score(ctx, in, models)
		if err = errors.Join(err, models.Close()); err != nil {
			return nil, err
		}
		rows[i], items[i] = result.Predictions, result.Items
	}
	g := &compare.Group{}
	g.Rows(rows[0], rows[1])
	g.Items(items[0], items[1])
	return g, nil
}
