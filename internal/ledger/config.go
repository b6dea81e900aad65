package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// PutConfig puts a configuration into force: the text as it was written and what
// it says. Versions count up; the same configuration again keeps its version.
func (l *Ledger) PutConfig(ctx context.Context, yaml string, cfg fleetscore.Config) (version int64, err error) {
	doc, err := json.Marshal(cfg)
	if err != nil {
		return 0, fleetscore.Wrap("store configuration", "", err)
	}
	err = l.update(ctx, "store configuration", "", func(t *tx) error {
		var haveYAML, haveDoc string
		err := t.row(`SELECT version, yaml, doc FROM configs ORDER BY version DESC LIMIT 1`).Scan(&version, &haveYAML, &haveDoc)
		if err == nil && haveYAML == yaml && haveDoc == string(doc) {
			return nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		t.changed = true
		return t.row(`INSERT INTO configs (applied, yaml, doc) VALUES (?, ?, ?) RETURNING version`, micros(time.Now()), yaml, string(doc)).Scan(&version)
	})
	return version, err
}

// Config is the configuration in force; kind NotFound if none was ever applied.
func (l *Ledger) Config(ctx context.Context) (cfg fleetscore.Config, yaml string, version int64, err error) {
	const op = "read configuration"
	var doc string
	err = l.read.QueryRowContext(ctx, `SELECT version, yaml, doc FROM configs ORDER BY version DESC LIMIT 1`).Scan(&version, &yaml, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return cfg, "", 0, fleetscore.Errorf(fleetscore.NotFound, op, "", "no configuration was applied yet").WithHint("fleetscore apply fleet.yaml")
	}
	if err != nil {
		return cfg, "", 0, problem(op, "", err)
	}
	if err := json.Unmarshal([]byte(doc), &cfg); err != nil {
		return fleetscore.Config{}, "", 0, fleetscore.Errorf(fleetscore.Corrupt, op, "", "%w", err)
	}
	return cfg, yaml, version, nil
}

// ScheduleState is how far a pipeline's schedule was carried out.
type ScheduleState struct {
	Pipeline string
	Created  time.Time
	NextFrom time.Time // where the next interval starts; zero before the first
	LastDue  time.Time // the last due time with an outcome; zero before the first
}

// Schedule is a pipeline's; kind NotFound if it was never put.
func (l *Ledger) Schedule(ctx context.Context, pipeline string) (ScheduleState, error) {
	var created, from, due int64
	err := l.read.QueryRowContext(ctx, `SELECT created, next_from, last_due FROM schedules WHERE pipeline = ?`, pipeline).Scan(&created, &from, &due)
	return ScheduleState{pipeline, timeOf(created), timeOf(from), timeOf(due)}, problem("read schedule", pipeline, err)
}

// PutSchedule keeps a pipeline's state.
func (l *Ledger) PutSchedule(ctx context.Context, s ScheduleState) error {
	return l.update(ctx, "store schedule", s.Pipeline, func(t *tx) error { return t.putSchedule(s) })
}

func (t *tx) putSchedule(s ScheduleState) error {
	return t.exec(`INSERT INTO schedules (pipeline, created, next_from, last_due) VALUES (?, ?, ?, ?)
		ON CONFLICT (pipeline) DO UPDATE SET created = excluded.created, next_from = excluded.next_from, last_due = excluded.last_due`,
		s.Pipeline, micros(s.Created), micros(s.NextFrom), micros(s.LastDue))
}

// DecideOccurrences records outcomes of due times, the schedule's state after
// them and the job made for the last one (nil if none), all or nothing. Kind
// Conflict if one of them has an outcome already, or the job exists.
func (l *Ledger) DecideOccurrences(ctx context.Context, s ScheduleState, occs []fleetscore.Occurrence, job *fleetscore.Job) error {
	return l.update(ctx, "decide occurrences", s.Pipeline, func(t *tx) error {
		if err := t.putSchedule(s); err != nil {
			return err
		}
		for _, o := range occs {
			if err := t.exec(`INSERT INTO occurrences (pipeline, due, state, job, reason) VALUES (?, ?, ?, ?, ?)`,
				s.Pipeline, micros(o.Due), string(o.State), string(o.Job), o.Reason); err != nil {
				return err
			}
		}
		if job == nil {
			return nil
		}
		return t.insertJob(*job)
	})
}

// Occurrences are the newest of a pipeline's due times, newest first. An empty
// pipeline means all of them.
func (l *Ledger) Occurrences(ctx context.Context, pipeline string, limit int) ([]fleetscore.Occurrence, error) {
	where, args := "", []any{}
	if pipeline != "" {
		where, args = "WHERE pipeline = ?", append(args, pipeline)
	}
	return query(ctx, l, "read occurrences", pipeline, func(scan func(...any) error) (fleetscore.Occurrence, error) {
		var o fleetscore.Occurrence
		var due int64
		err := scan(&o.Pipeline, &due, &o.State, &o.Job, &o.Reason)
		o.Due = timeOf(due)
		return o, err
	}, strings.Join([]string{`SELECT pipeline, due, state, job, reason FROM occurrences`, where, `ORDER BY due DESC, pipeline LIMIT ?`}, " "), append(args, limit)...)
}
