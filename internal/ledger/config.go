package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/fleetscore/fleetscore"
)

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
