package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// Costs keeps what the models of pipelines cost.
type Costs interface {
	// Costs is what was measured of a pipeline's jobs; the zero value if nothing was.
	Costs(ctx context.Context, pipeline string) (dispatch.Measured, error)
	// PutCosts keeps what was measured.
	PutCosts(ctx context.Context, pipeline string, m dispatch.Measured) error
}

const selectCosts = `SELECT doc FROM costs WHERE pipeline = ?`

// Costs implements the role Costs.
func (l *core) Costs(ctx context.Context, pipeline string) (dispatch.Measured, error) {
	m, err := scanDoc[dispatch.Measured](l.row(ctx, selectCosts, pipeline).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return m, nil
	}
	return m, l.problem("read costs", pipeline, err)
}

// PutCosts implements the role Costs.
func (l *core) PutCosts(ctx context.Context, pipeline string, m dispatch.Measured) error {
	doc, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return l.update(ctx, "keep costs", pipeline, func(t *tx) error {
		return t.exec(`INSERT INTO costs (pipeline, doc) VALUES (?, ?) ON CONFLICT (pipeline) DO UPDATE SET doc = excluded.doc`, pipeline, string(doc))
	})
}

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
	// TasksEnded counts the tasks of a pool that have succeeded and failed since the ledger
	// began, also those of jobs that were forgotten. It costs the same however many these are.
	TasksEnded(ctx context.Context, pool string) (succeeded, failed int64, err error)
}

// KeptEvaluations is how many evaluations of a pool's formula are kept.
const KeptEvaluations = 500

const (
	// endedTasks are the tasks of a pool that have ended in jobs that haven't.
	endedTasks = `SELECT t.state FROM jobs j JOIN tasks t ON t.job = j.id WHERE j.state IN ('queued', 'running', 'committing') AND t.pool = ?1`
	tasksEnded = `SELECT
		COALESCE((SELECT succeeded FROM pool_tasks WHERE pool = ?1), 0) + (SELECT COUNT(*) FROM (` + endedTasks + `) AS part WHERE state = 'succeeded'),
		COALESCE((SELECT failed FROM pool_tasks WHERE pool = ?1), 0) + (SELECT COUNT(*) FROM (` + endedTasks + `) AS part WHERE state = 'failed')`
	// countEnded counts the tasks of a job that ends.
	countEnded = `INSERT INTO pool_tasks (pool, succeeded, failed)
		SELECT pool, SUM(CASE WHEN state = 'succeeded' THEN 1 ELSE 0 END), SUM(CASE WHEN state = 'failed' THEN 1 ELSE 0 END) FROM tasks WHERE job = ? GROUP BY pool
		ON CONFLICT (pool) DO UPDATE SET succeeded = pool_tasks.succeeded + excluded.succeeded, failed = pool_tasks.failed + excluded.failed`

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

// TasksEnded implements Scales.
func (l *core) TasksEnded(ctx context.Context, pool string) (succeeded, failed int64, err error) {
	err = l.row(ctx, tasksEnded, pool).Scan(&succeeded, &failed)
	return succeeded, failed, l.problem("count tasks", pool, err)
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

// QueuedImage is how many tasks of an image wait.
type QueuedImage struct {
	Image string // empty: any will do
	Tasks int64
}

const selectImages = `SELECT image, COUNT(*) FROM tasks WHERE pool = ? AND state = 'queued' GROUP BY image ORDER BY MIN(priority), MIN(job_seq)`

// QueuedImages implements Queue.
func (l *core) QueuedImages(ctx context.Context, pool string) ([]QueuedImage, error) {
	return query(ctx, l, "count tasks", pool, func(scan func(...any) error) (q QueuedImage, err error) {
		err = scan(&q.Image, &q.Tasks)
		return q, err
	}, selectImages, pool)
}
