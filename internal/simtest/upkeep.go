package simtest

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/scheduler"
	"github.com/fleetscore/fleetscore/internal/table"
)

// Maintenance keeps replaced files for a day and joins the files of an hour an hour
// after its end. A run takes minutes, so its maintenance has a clock that is nearly a
// day ahead: then it deletes what was replaced some minutes before, and every hour is
// over.
const (
	dayAhead      = 24*time.Hour - graceHere
	graceHere     = 3 * time.Minute // longer than any write takes from its first file to its commit
	maintainEvery = 70 * time.Second
	retentionHere = 6 * time.Minute // of the datasets' rows, in the runs that have one
)

// datasetSettings are the datasets' retentions.
func (w *world) datasetSettings() map[string]fleetscore.DatasetConfig {
	if !w.retention {
		return nil
	}
	keep := fleetscore.DatasetConfig{Retention: fleetscore.Duration(w.ahead() + retentionHere)}
	return map[string]fleetscore.DatasetConfig{dataset: keep, measured: keep}
}

// expired tells whether a row may be gone because of its age.
func (w *world) expired(at fleetscore.Micros) bool {
	return w.retention && at <= fleetscore.MicrosOf(time.Now().Add(-retentionHere))
}

// ahead is how far maintenance's clock is ahead.
func (w *world) ahead() time.Duration {
	if w.mutant == forgetsReaders {
		return dayAhead + graceHere
	}
	return dayAhead
}

// idle is a ledger without jobs, which a mutant shows to maintenance.
type idle struct{ scheduler.Ledger }

// Jobs implements ledger.Jobs.
func (idle) Jobs(context.Context, ledger.JobFilter) ([]fleetscore.Job, error) { return nil, nil }

// maintenance is the loop that keeps the tables of a server small.
func (w *world) maintenance(l scheduler.Ledger, b *blobs, c *catalog.Catalog, now *clock.Clock) (func(context.Context) error, error) {
	if w.mutant == forgetsJobs {
		l = idle{l}
	}
	keeper, err := scheduler.New(scheduler.Deps{Ledger: l, Store: b, Catalog: c, Log: w.log, Now: func() time.Time { return now.Now().Add(w.ahead()) }})
	return func(ctx context.Context) error {
		ticker := time.NewTicker(maintainEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ticker.C:
			}
			if !now.Trusted() {
				continue
			}
			done, err := keeper.Maintain(ctx, catalog.Maintenance{})
			for _, m := range done {
				w.log.Info("maintained", "table", m.Table, "joined", m.Replaced, "into", m.By, "expired", m.Expired, "deleted", m.Deleted, "problem", m.Problem)
				w.record.maintained(m)
			}
			if err != nil {
				w.log.Info("maintenance fails", "error", err)
			}
		}
	}, err
}

// maintained counts what maintenance did.
func (r *record) maintained(m catalog.Maintained) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.upkept.Replaced += m.Replaced
	r.upkept.Expired += m.Expired
	r.upkept.Deleted += m.Deleted
}

// browse is a reader: it looks at a table, takes its time, and then reads the files
// that it saw, as a program does that follows the table by itself.
func (w *world) browse(ctx context.Context) {
	rnd := rand.New(rand.NewPCG(w.rnd.Uint64(), 5))
	c := catalog.New(w.store)
	for w.more(time.Now()) && ctx.Err() == nil {
		tables := []*table.Delta{c.Dataset(dataset)}
		for _, p := range w.pipelines {
			tables = append(tables, c.Predictions(p).Delta, c.Coverage(p).Delta)
		}
		if w.streams() {
			tables = append(tables, c.Dataset(measured))
		}
		t := tables[rnd.IntN(len(tables))]
		snap, err := t.Snapshot(ctx)
		time.Sleep(time.Second + time.Duration(rnd.Int64N(int64(graceHere-5*time.Second))))
		if err != nil || ctx.Err() != nil {
			continue // it isn't there yet
		}
		f, _, err := t.ReadFrame(ctx, snap.Files, nil, table.ReadQuery{})
		if err != nil && !w.never.Load() {
			w.log.Info("a reader can't read what it saw, as a clock was wrong, by which the time of grace is told", "table", t.Name(), "error", err)
		} else if err != nil {
			w.record.problem("a reader can't read %s as it was less than %s before: %v", t.Name(), graceHere, err)
		} else if int64(f.Len()) != snap.Rows() {
			w.record.problem("a reader of %s finds %d rows in place of %d", t.Name(), f.Len(), snap.Rows())
		}
	}
}
