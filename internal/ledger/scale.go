package ledger

import (
	"context"
	"encoding/json"
	"time"

	"github.com/fleetscore/fleetscore/internal/autoscale"
)

// Scales keeps what the formulas of pools see, and what they decided.
type Scales interface {
	// AddSample keeps the metrics of a pool at a time. The samples of all pools from
	// before keep are removed.
	AddSample(ctx context.Context, pool string, s autoscale.Sample, keep time.Time) error
	// Samples are a pool's since a time, oldest first.
	Samples(ctx context.Context, pool string, since time.Time) ([]autoscale.Sample, error)
	// AddEvaluation keeps an evaluation of a pool's formula. Of each pool the newest
	// KeptEvaluations are kept.
	AddEvaluation(ctx context.Context, pool string, e autoscale.Evaluation) error
	// Evaluations are a pool's, newest first, at most limit.
	Evaluations(ctx context.Context, pool string, limit int) ([]autoscale.Evaluation, error)
}

// KeptEvaluations is how many evaluations of a pool's formula are kept.
const KeptEvaluations = 500

const (
	selectSamples     = `SELECT doc FROM pool_samples WHERE pool = ? AND at >= ? ORDER BY at`
	trimSamples       = `DELETE FROM pool_samples WHERE at < ?`
	selectEvaluations = `SELECT doc FROM pool_evaluations WHERE pool = ? ORDER BY seq DESC LIMIT ?`
	trimEvaluations   = `DELETE FROM pool_evaluations WHERE pool = ?1 AND seq <= (SELECT seq FROM pool_evaluations WHERE pool = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)`
)

// AddSample implements Scales.
func (l *core) AddSample(ctx context.Context, pool string, s autoscale.Sample, keep time.Time) error {
	doc, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return l.update(ctx, "keep sample", pool, func(t *tx) error {
		if err := t.exec(`INSERT INTO pool_samples (pool, at, doc) VALUES (?, ?, ?) ON CONFLICT (pool, at) DO UPDATE SET doc = excluded.doc`, pool, micros(s.At), string(doc)); err != nil {
			return err
		}
		return t.exec(trimSamples, micros(keep))
	})
}

// Samples implements Scales.
func (l *core) Samples(ctx context.Context, pool string, since time.Time) ([]autoscale.Sample, error) {
	return query(ctx, l, "read samples", pool, scanDoc[autoscale.Sample], selectSamples, pool, micros(since))
}

// AddEvaluation implements Scales.
func (l *core) AddEvaluation(ctx context.Context, pool string, e autoscale.Evaluation) error {
	doc, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return l.update(ctx, "keep evaluation", pool, func(t *tx) error {
		if err := t.exec(`INSERT INTO pool_evaluations (pool, doc) VALUES (?, ?)`, pool, string(doc)); err != nil {
			return err
		}
		return t.exec(trimEvaluations, pool, KeptEvaluations)
	})
}

// Evaluations implements Scales.
func (l *core) Evaluations(ctx context.Context, pool string, limit int) ([]autoscale.Evaluation, error) {
	return query(ctx, l, "list evaluations", pool, scanDoc[autoscale.Evaluation], selectEvaluations, pool, limit)
}
