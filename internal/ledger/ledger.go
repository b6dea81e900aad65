// Package ledger is the database of configuration, schedules, jobs, tasks, leases,
// nodes and audit.
//
// It has roles: small interfaces, each declared beside the words it needs
// (Configs, Schedules, Jobs, JobChanges, Tasks, Queue, Nodes, NodeChanges, Tokens,
// Sessions, Audits, Events, Times, History, Scales, Harms, Costs, Rejects). Whoever needs a part of the ledger takes that role; Ledger is all of
// them. Package ledgertest is the conformance suite of every implementation.
//
// The ledger takes no decisions. Where a decision depends on what the ledger
// holds, the caller passes it in as a function. The function gets the state as it
// is inside the transaction that writes the decision, so that two decisions never
// build on the same state. Such a function must not call the ledger, and may be
// called again if the transaction has to be repeated. What returned without error
// is on disk, except signs of life of nodes (Renew). A lease's id fences its attempt: only one end of it is accepted.
//
// There are two engines: SQLite in one file, opened by one process at a time, and a
// PostgreSQL database, which several processes may have open. They share the
// statements; a dialect translates the few words in which they differ. A ledger is
// safe for concurrent use. A timer writes signs of life. SQLite starts no other goroutines
// of its own; PostgreSQL has some that carry events between the processes.
package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Ledger is every role of one database.
type Ledger interface {
	Configs
	Schedules
	Jobs
	JobChanges
	Tasks
	Queue
	Nodes
	NodeChanges
	Tokens
	Sessions
	Audits
	Events
	Times
	History
	Scales
	Harms
	Costs
	Rejects
	io.Closer
}

// Times is what the ledger knows of the time.
type Times interface {
	// LastTime is the latest time of something that had happened when it was
	// written: a node's sign of life, a due time that was decided. It is zero in a
	// new ledger. A server compares its clock with it when it starts.
	LastTime(ctx context.Context) (time.Time, error)
}

// LastTime implements Times.
func (l *core) LastTime(ctx context.Context) (time.Time, error) {
	var us int64
	err := l.row(ctx, `SELECT MAX(at) FROM (
		SELECT COALESCE(MAX(heartbeat), 0) AS at FROM nodes UNION ALL
		SELECT COALESCE(MAX(created), 0) FROM schedules UNION ALL
		SELECT COALESCE(MAX(last_due), 0) FROM schedules) AS times`).Scan(&us)
	return timeOf(us), l.problem("read the last time", "", err)
}

// Configs keeps the configurations that were applied.
type Configs interface {
	// PutConfig puts a configuration into force at a time: the text as it was written
	// and what it says. Versions count up; the same configuration again keeps its
	// version and its time.
	PutConfig(ctx context.Context, at time.Time, yaml string, cfg fleetscore.Config) (version int64, err error)
	// Config is the configuration in force; kind NotFound if none was ever applied.
	Config(ctx context.Context) (cfg fleetscore.Config, yaml string, version int64, err error)
	// ConfigVersions lists the configurations that were applied and are still kept,
	// newest first, at most limit, without their texts.
	ConfigVersions(ctx context.Context, limit int) ([]ConfigVersion, error)
	// ConfigVersion is one of them with its text; kind NotFound if it isn't kept.
	ConfigVersion(ctx context.Context, version int64) (ConfigVersion, error)
}

// ConfigVersion is a configuration that was applied.
type ConfigVersion struct {
	Version int64
	Applied time.Time
	YAML    string
	Config  fleetscore.Config
}

// PutConfig implements Configs.
func (l *core) PutConfig(ctx context.Context, at time.Time, yaml string, cfg fleetscore.Config) (version int64, err error) {
	doc, err := json.Marshal(cfg)
	if err != nil {
		return 0, fleetscore.Wrap("store configuration", "", err)
	}
	err = l.update(ctx, "store configuration", "", func(t *tx) error {
		if err := t.lock("configuration"); err != nil {
			return err
		}
		var haveYAML, haveDoc string
		err := t.row(`SELECT version, yaml, doc FROM configs ORDER BY version DESC LIMIT 1`).Scan(&version, &haveYAML, &haveDoc)
		if err == nil && haveYAML == yaml && haveDoc == string(doc) {
			return nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		t.event(ConfigTopic)
		return t.row(`INSERT INTO configs (applied, yaml, doc) VALUES (?, ?, ?) RETURNING version`, micros(at), yaml, string(doc)).Scan(&version)
	})
	return version, err
}

// Config implements Configs.
func (l *core) Config(ctx context.Context) (cfg fleetscore.Config, yaml string, version int64, err error) {
	const op = "read configuration"
	var doc string
	err = l.row(ctx, `SELECT version, yaml, doc FROM configs ORDER BY version DESC LIMIT 1`).Scan(&version, &yaml, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return cfg, "", 0, fleetscore.Errorf(fleetscore.NotFound, op, "", "no configuration was applied yet").WithHint("fleetscore apply fleet.yaml")
	}
	if err != nil {
		return cfg, "", 0, l.problem(op, "", err)
	}
	if err := json.Unmarshal([]byte(doc), &cfg); err != nil {
		return fleetscore.Config{}, "", 0, fleetscore.Errorf(fleetscore.Corrupt, op, "", "%w", err)
	}
	return cfg, yaml, version, nil
}

// ConfigVersions implements Configs.
func (l *core) ConfigVersions(ctx context.Context, limit int) ([]ConfigVersion, error) {
	return query(ctx, l, "list configurations", "", func(scan func(...any) error) (v ConfigVersion, err error) {
		var applied int64
		err = scan(&v.Version, &applied)
		v.Applied = timeOf(applied)
		return v, err
	}, `SELECT version, applied FROM configs ORDER BY version DESC LIMIT ?`, limit)
}

// ConfigVersion implements Configs.
func (l *core) ConfigVersion(ctx context.Context, version int64) (v ConfigVersion, err error) {
	const op = "read configuration"
	subject := strconv.FormatInt(version, 10)
	var applied int64
	var doc string
	err = l.row(ctx, `SELECT version, applied, yaml, doc FROM configs WHERE version = ?`, version).Scan(&v.Version, &applied, &v.YAML, &doc)
	if errors.Is(err, sql.ErrNoRows) {
		return v, fleetscore.Errorf(fleetscore.NotFound, op, subject, "no configuration of that version is kept").WithHint("fleetscore config history")
	}
	if err != nil {
		return v, l.problem(op, subject, err)
	}
	v.Applied = timeOf(applied)
	if err := json.Unmarshal([]byte(doc), &v.Config); err != nil {
		return ConfigVersion{}, fleetscore.Errorf(fleetscore.Corrupt, op, subject, "%w", err)
	}
	return v, nil
}
