package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/fleetscore/fleetscore"
)

// Snapshot is a ledger as it is at one moment, whatever a server writes into it
// meanwhile. It is read for backups, in a form that is the same for all engines.
type Snapshot struct {
	core
	name    string
	tx      *sql.Tx
	version int64
}

// Row is one row of a table. Its values are numbers (int64, float64), texts and nil.
type Row struct {
	Table   string
	Columns []string // the same slice for all rows of a table
	Values  []any
}

// SnapshotFile reads a ledger in a file, which a server may have open.
func SnapshotFile(ctx context.Context, path string) (*Snapshot, error) {
	const op = "read ledger"
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fleetscore.Errorf(fleetscore.NotFound, op, path, "there is no ledger").WithHint("name the folder of a server with --dir")
	}
	db, err := sql.Open("sqlite", sqliteName(path, url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(10000)", "query_only(1)"}}))
	if err != nil {
		return nil, fleetscore.Wrap(op, path, err)
	}
	return snapshot(ctx, db, sqliteDialect{}, path, nil)
}

// SnapshotPostgres reads a ledger in a database.
func SnapshotPostgres(ctx context.Context, c PostgresConfig) (*Snapshot, error) {
	cfg, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	p := &Postgres{cfg: cfg}
	return snapshot(ctx, stdlib.OpenDB(*cfg), postgresDialect{}, p.name(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
}

func snapshot(ctx context.Context, db *sql.DB, d dialect, name string, how *sql.TxOptions) (*Snapshot, error) {
	s := &Snapshot{core: core{read: db, dialect: d}, name: name}
	err := s.begin(ctx, how)
	if err != nil {
		return nil, errors.Join(s.problem("read ledger", name, err), s.Close())
	}
	return s, nil
}

func (s *Snapshot) begin(ctx context.Context, how *sql.TxOptions) (err error) {
	texts, err := steps(s.dialect)
	if err != nil {
		return err
	}
	if s.tx, err = s.read.BeginTx(ctx, how); err != nil {
		return err
	}
	// The first statement fixes the moment.
	if err := s.tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version`).Scan(&s.version); err != nil {
		return err
	}
	if known := slices.Max(slices.Collect(maps.Keys(texts))); s.version > known {
		return newer(s.version, known)
	}
	return nil
}

// Version is the version of the tables.
func (s *Snapshot) Version() int64 { return s.version }

// Each calls fn with every row of every table, table by table. fn doesn't keep them.
func (s *Snapshot) Each(ctx context.Context, fn func(Row) error) error {
	const op = "read ledger"
	names, err := tableNames(ctx, s.tx, s.dialect)
	if err != nil {
		return s.problem(op, s.name, err)
	}
	for _, t := range names {
		if t == "sessions" { // a browser that signs out later stays signed out after a restore
			continue
		}
		if err := s.each(ctx, t, fn); err != nil {
			return s.problem(op, s.name, err)
		}
	}
	return nil
}

func (s *Snapshot) each(ctx context.Context, name string, fn func(Row) error) error {
	rows, err := s.tx.QueryContext(ctx, `SELECT * FROM `+name) // a name of the schema
	if err != nil {
		return err
	}
	defer rows.Close()
	r := Row{Table: name}
	if r.Columns, err = rows.Columns(); err != nil {
		return err
	}
	r.Values = make([]any, len(r.Columns))
	into := make([]any, len(r.Columns))
	for i := range into {
		into[i] = &r.Values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		for i, v := range r.Values {
			switch v.(type) {
			case nil, int64, float64, string:
			default:
				return fmt.Errorf("the column %s of the table %s holds a %T", r.Columns[i], name, v)
			}
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Close ends the reading.
func (s *Snapshot) Close() error {
	if s.tx != nil {
		_ = s.tx.Rollback() // it only read
	}
	return s.read.Close()
}

// asker asks for rows, in a transaction.
type asker interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// tableNames are the tables whose rows make up a ledger. Others belong to the engine, are kept
// by triggers, or say which process leads.
func tableNames(ctx context.Context, q asker, d dialect) ([]string, error) {
	rows, err := q.QueryContext(ctx, d.tables())
	if err != nil {
		return nil, err
	}
	all, err := collect(rows, scanText[string])
	return slices.DeleteFunc(all, func(name string) bool {
		return name == "goose_db_version" || name == "job_counts" || name == "leader" || name == "servers" || name == "log_pieces"
	}), err
}

func (sqliteDialect) tables() string {
	return `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name`
}

func (postgresDialect) tables() string {
	return `SELECT table_name::text FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name`
}

// numbering lets the numbers of new rows follow those that were put in. SQLite does so by
// itself.
func (sqliteDialect) numbering() string { return "" }

func (postgresDialect) numbering() string {
	return `SELECT format('SELECT setval(pg_get_serial_sequence(%L, %L), (SELECT COALESCE(MAX(%I), 0) + 1 FROM %I), false)', table_name, column_name, column_name, table_name)
		FROM information_schema.columns WHERE table_schema = current_schema() AND is_identity = 'YES'`
}

// RestoreFile makes a ledger in a file from the rows of a snapshot, whose tables had that
// version. next returns io.EOF after the last one. Kind Conflict if there is a ledger with
// rows, or if the version is a newer release's.
func RestoreFile(ctx context.Context, path string, version int64, next func() (Row, error)) error {
	l, err := openFile(ctx, path, version)
	if err != nil {
		return err
	}
	err = l.fill(ctx, path, next)
	return errors.Join(err, l.Close())
}

// RestorePostgres makes a ledger in an empty database, as RestoreFile does in a file.
func RestorePostgres(ctx context.Context, c PostgresConfig, version int64, next func() (Row, error)) error {
	p, err := openDatabase(ctx, c, version)
	if err != nil {
		return err
	}
	if err := p.Lead(ctx, Patience); err != nil { // no server may fill it meanwhile
		return errors.Join(err, p.Close())
	}
	err = p.fill(ctx, p.name(), next)
	return errors.Join(err, p.Resign(context.WithoutCancel(ctx)), p.Close())
}

// fill puts rows into empty tables, all or none.
func (l *core) fill(ctx context.Context, name string, next func() (Row, error)) error {
	const op = "restore ledger"
	db, err := l.write.BeginTx(ctx, nil)
	if err != nil {
		return l.problem(op, name, err)
	}
	defer db.Rollback() // after the commit it does nothing; otherwise err says what happened
	f := &filling{tx: &tx{conn: conn{ctx, l, db, db}}, db: db, columns: map[string][]string{}}
	if err = f.begin(); err == nil {
		err = f.rows(next)
	}
	if err == nil {
		err = f.number()
	}
	if err == nil {
		err = db.Commit()
	}
	return l.problem(op, name, err)
}

// filling is a ledger that is being filled.
type filling struct {
	*tx
	db      *sql.Tx
	columns map[string][]string // of each table
	table   string              // of the rows that wait
	waiting [][]any
}

// begin looks at the tables. They have to be empty.
func (f *filling) begin() error {
	if f.l.guarded != nil {
		if err := f.l.guarded(f.tx); err != nil {
			return err
		}
	}
	names, err := tableNames(f.ctx, f.db, f.l.dialect)
	if err != nil {
		return err
	}
	for _, t := range names {
		rows, err := f.db.QueryContext(f.ctx, `SELECT * FROM `+t+` LIMIT 1`)
		if err != nil {
			return err
		}
		f.columns[t], err = rows.Columns()
		full := rows.Next()
		if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return err
		}
		if full {
			return fleetscore.Errorf(fleetscore.Conflict, "", "", "there is a ledger with entries already").
				WithHint("restore into an empty folder and an empty database")
		}
	}
	return nil
}

// atOnce is how many rows go into one statement.
const atOnce = 200

func (f *filling) rows(next func() (Row, error)) error {
	for {
		r, err := next()
		if errors.Is(err, io.EOF) {
			return f.flush()
		} else if err != nil {
			return err
		}
		if r.Table != f.table || len(f.waiting) == atOnce {
			if err := f.flush(); err != nil {
				return err
			}
			f.table = r.Table
		}
		if have := f.columns[r.Table]; have == nil || !slices.Equal(slices.Sorted(slices.Values(have)), slices.Sorted(slices.Values(r.Columns))) || len(r.Values) != len(r.Columns) {
			return fleetscore.Errorf(fleetscore.Corrupt, "", "", "a row of the table %s has the columns %s, which the table doesn't have", r.Table, strings.Join(r.Columns, ", "))
		}
		f.columns[r.Table] = r.Columns // in the order of the rows
		f.waiting = append(f.waiting, slices.Clone(r.Values))
	}
}

func (f *filling) flush() error {
	if len(f.waiting) == 0 {
		return nil
	}
	columns := f.columns[f.table]
	one := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
	err := f.exec(`INSERT INTO `+f.table+` (`+strings.Join(columns, ", ")+`) VALUES `+one+strings.Repeat(", "+one, len(f.waiting)-1), slices.Concat(f.waiting...)...)
	f.waiting = f.waiting[:0]
	return err
}

func (f *filling) number() error {
	ask := f.l.dialect.numbering()
	if ask == "" {
		return nil
	}
	rows, err := f.db.QueryContext(f.ctx, ask)
	if err != nil {
		return err
	}
	statements, err := collect(rows, scanText[string])
	for _, s := range statements {
		if err == nil {
			_, err = f.db.ExecContext(f.ctx, s)
		}
	}
	return err
}
