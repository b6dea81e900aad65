package ledger

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/fleetscore/fleetscore"
)

// core carries out every role by SQL statements, which are written once for all
// engines. A dialect translates the few words in which the engines differ.
//
// An engine that lets several transactions write at once needs locks. Whoever
// changes a job, its tasks, its attempts or its results holds the lock of the job's row
// first, the one exception being LeaseTasks, which locks the tasks themselves. Then
// come attempts, then nodes. SQLite needs none of them, as its writers take turns.
type core struct {
	*events             // shared by all views of one opening
	read, write *sql.DB // may be the same
	dialect     dialect
	texts       sync.Map        // statements as the engine takes them, by how they are written
	tell        func([]Topic)   // tells other processes of events; nil if there are none
	guarded     func(*tx) error // refuses transactions that this process may not make; nil if it may make all
	group       *group          // carries out transactions of an engine with one writer; nil if the engine has several
	parsed      *parsed         // nil if the engine keeps what it parsed by itself
	signs       *signs          // the signs of life of nodes
	endings     *line[*ending]  // the ends of attempts
}

// dialect is what the engines do differently.
type dialect interface {
	// text is a statement as the engine takes it. Statements are written with the
	// parameters ? or ?1, ?2…, with FOR UPDATE (also SKIP LOCKED) where rows have
	// to be locked, with json_each(?) AS w for the values w.value of a list, and with
	// json_rows(?) AS w for its objects, whose fields are w.value ->> 'name'.
	text(statement string) string
	// value is an argument as the engine takes it.
	value(arg any) any
	// schema is the text of a migration as the engine takes it. Migrations are
	// written with the types INTEGER (64 bits), REAL (64 bits), TEXT and BLOB.
	schema(text string) string
	// name stands in the names of migrations for this engine alone.
	name() string
	// named waits for a lock of that name, which ends with the transaction.
	named(t *tx, lock string) error
	// problem gives an error of the engine its kind; nil if the error isn't the engine's.
	problem(op, subject string, err error) error
	// again reports whether a transaction failed only because of another one, so
	// that it has to be repeated.
	again(err error) bool
	// tables asks for the names of all tables, and numbering for the statements that
	// let the numbers of new rows follow those of the rows that are there; empty if
	// none are needed.
	tables() string
	numbering() string
}

// text is a statement as the engine takes it.
func (l *core) text(statement string) string {
	if t, ok := l.texts.Load(statement); ok {
		return t.(string)
	}
	t := l.dialect.text(statement)
	l.texts.Store(statement, t)
	return t
}

// querier reads, in a transaction or outside of any.
type querier interface {
	row(statement string, args ...any) *sql.Row
	rows(statement string, args ...any) (*sql.Rows, error)
}

// conn carries out statements.
type conn struct {
	ctx context.Context
	l   *core
	db  interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}
	tx *sql.Tx // db, if it is a transaction
}

// reader reads outside of a transaction.
func (l *core) reader(ctx context.Context) conn { return conn{ctx: ctx, l: l, db: l.read} }

// row is the reader's.
func (l *core) row(ctx context.Context, statement string, args ...any) *sql.Row {
	return l.reader(ctx).row(statement, args...)
}

func (c conn) values(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = c.l.dialect.value(a)
	}
	return out
}

func (c conn) row(statement string, args ...any) *sql.Row {
	text := c.l.text(statement)
	if s := c.l.parsed.statement(c, text); s != nil {
		return s.QueryRowContext(c.ctx, c.values(args)...)
	}
	return c.db.QueryRowContext(c.ctx, text, c.values(args)...)
}

func (c conn) rows(statement string, args ...any) (*sql.Rows, error) {
	text := c.l.text(statement)
	if s := c.l.parsed.statement(c, text); s != nil {
		return s.QueryContext(c.ctx, c.values(args)...)
	}
	return c.db.QueryContext(c.ctx, text, c.values(args)...)
}

// change carries out a statement and counts the rows that it changed.
func (c conn) change(statement string, args ...any) (rows int64, err error) {
	text := c.l.text(statement)
	var r sql.Result
	if s := c.l.parsed.statement(c, text); s != nil {
		r, err = s.ExecContext(c.ctx, c.values(args)...)
	} else {
		r, err = c.db.ExecContext(c.ctx, text, c.values(args)...)
	}
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (c conn) exec(statement string, args ...any) error {
	_, err := c.change(statement, args...)
	return err
}

// namesOf is a list of the names in a map for json_each.
func namesOf[K ~string, V any](l *core, of map[K]V) string {
	return names(l, slices.Collect(maps.Keys(of)))
}

// names is a list of names for json_each.
func names[K ~string](l *core, of []K) string {
	out := make([]any, 0, len(of))
	for _, name := range of {
		out = append(out, l.dialect.value(string(name)))
	}
	doc, _ := json.Marshal(out) // of texts, which can always be written
	return string(doc)
}

// tx is one transaction that writes.
type tx struct {
	conn
	events map[Topic]bool // to put after the commit
}

// event puts events once the transaction is committed.
func (t *tx) event(topics ...Topic) {
	for _, topic := range topics {
		t.events[topic] = true
	}
}

// topics are those of the events.
func (t *tx) topics() []Topic { return slices.Collect(maps.Keys(t.events)) }

// lock makes the transactions that take the lock of that name follow one another. It
// is for what has no row yet that could be locked.
func (t *tx) lock(name string) error { return t.l.dialect.named(t, name) }

// record is a row to be written, by column.
type record map[string]any

// changes collects rows, so that one statement writes all of a kind.
type changes struct {
	tasks, begun, ended, results []record
	nodes                        map[fleetscore.NodeID]time.Time // who has less to do, and since when
}

func (c *changes) task(task fleetscore.Task, notBefore time.Time) error {
	doc, err := json.Marshal(task)
	c.tasks = append(c.tasks, record{"id": string(task.ID), "state": string(task.State), "at": micros(notBefore), "doc": string(doc)})
	return err
}

func (c *changes) idle(id fleetscore.NodeID, now time.Time) {
	if c.nodes == nil {
		c.nodes = map[fleetscore.NodeID]time.Time{}
	}
	if now.After(c.nodes[id]) {
		c.nodes[id] = now
	}
}

const (
	putTasks = `UPDATE tasks SET state = w.value ->> 'state', not_before = CAST(w.value ->> 'at' AS BIGINT), doc = w.value ->> 'doc' FROM json_rows(?) AS w WHERE tasks.id = w.value ->> 'id'`
	putBegun = `INSERT INTO attempts (lease, task, job, number, node, state, reason, started, expires, ended) SELECT w.value ->> 'lease', w.value ->> 'task', w.value ->> 'job',
		CAST(w.value ->> 'number' AS BIGINT), w.value ->> 'node', 'leased', '', CAST(w.value ->> 'started' AS BIGINT), CAST(w.value ->> 'expires' AS BIGINT), 0 FROM json_rows(?) AS w`
	putEnded = `UPDATE attempts SET state = w.value ->> 'state', reason = w.value ->> 'reason', ended = CAST(w.value ->> 'at' AS BIGINT) FROM json_rows(?) AS w
		WHERE attempts.lease = w.value ->> 'lease'`
	putResults = `INSERT INTO results (task, job, doc) SELECT w.value ->> 'task', w.value ->> 'job', w.value ->> 'doc' FROM json_rows(?) AS w`
	putIdle    = `UPDATE nodes SET idle_since = CAST(w.value ->> 'at' AS BIGINT) FROM json_rows(?) AS w
		WHERE nodes.id = w.value ->> 'id' AND NOT EXISTS (SELECT 1 FROM attempts WHERE node = nodes.id AND state = 'leased')`
	lockPools = `SELECT pool FROM nodes WHERE id IN (SELECT w.value FROM json_each(?) AS w) ORDER BY id FOR UPDATE`
)

// write writes the rows.
func (c *changes) write(t *tx) error {
	for _, w := range []struct {
		statement string
		rows      []record
	}{{putTasks, c.tasks}, {putBegun, c.begun}, {putEnded, c.ended}, {putResults, c.results}} {
		if err := t.put(w.statement, w.rows); err != nil {
			return err
		}
	}
	if len(c.nodes) == 0 {
		return nil
	}
	pools, err := list(t, scanText[string], lockPools, namesOf(t.l, c.nodes))
	if err != nil {
		return err
	}
	for _, pool := range pools {
		t.event(NodesTopic(pool))
	}
	var rows []record
	for id, at := range c.nodes {
		rows = append(rows, record{"id": string(id), "at": micros(at)})
	}
	return t.put(putIdle, rows)
}

// put carries out a statement about rows, if there are any.
func (t *tx) put(statement string, rows []record) error {
	if len(rows) == 0 {
		return nil
	}
	doc, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	return t.exec(statement, string(doc))
}

// list collects the rows that a query yields.
func list[T any](q querier, scan func(func(...any) error) (T, error), statement string, args ...any) ([]T, error) {
	rows, err := q.rows(statement, args...)
	if err != nil {
		return nil, err
	}
	return collect(rows, scan)
}

// query collects the rows that a query outside of a transaction yields.
func query[T any](ctx context.Context, l *core, op, subject string, scan func(func(...any) error) (T, error), statement string, args ...any) ([]T, error) {
	out, err := list(l.reader(ctx), scan, statement, args...)
	return out, l.problem(op, subject, err)
}

func collect[T any](rows *sql.Rows, scan func(func(...any) error) (T, error)) ([]T, error) {
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// repeats bounds how often a transaction is repeated that others got in the way of,
// and repeatAfter how long it waits longer each time.
const (
	repeats     = 12
	repeatAfter = 5 * time.Millisecond
)

// update runs fn in one transaction: all of it is on disk when update returns
// nil, none of it otherwise. It may run fn several times.
func (l *core) update(ctx context.Context, op, subject string, fn func(*tx) error) error {
	for try := 1; ; try++ {
		topics, err := l.transact(ctx, fn)
		if err == nil {
			l.Put(topics...)
			return nil
		}
		if try > repeats || !l.dialect.again(err) {
			return l.problem(op, subject, err)
		}
		select {
		case <-ctx.Done():
			return l.problem(op, subject, err)
		case <-time.After(rand.N(time.Duration(try) * repeatAfter)):
		}
	}
}

// transact carries out one transaction, together with others where the engine has one writer.
func (l *core) transact(ctx context.Context, fn func(*tx) error) ([]Topic, error) {
	if l.group != nil {
		return l.group.do(ctx, l, fn)
	}
	return l.once(ctx, fn)
}

// once carries out one transaction by itself.
func (l *core) once(ctx context.Context, fn func(*tx) error) (topics []Topic, err error) {
	defer l.parsed.parse(l.write) // when the transaction has ended
	sqlTx, err := l.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	t := &tx{conn: conn{ctx, l, sqlTx, sqlTx}, events: map[Topic]bool{}}
	defer sqlTx.Rollback() // after the commit it does nothing; otherwise err says what happened
	if l.guarded != nil {
		if err := l.guarded(t); err != nil {
			return nil, err
		}
	}
	if err := fn(t); err != nil {
		return nil, err
	}
	return t.topics(), sqlTx.Commit()
}

// Put implements Events.
func (l *core) Put(topics ...Topic) {
	l.events.Put(topics...)
	if l.tell != nil && len(topics) > 0 {
		l.tell(topics)
	}
}

// problem gives an error of the engine its kind. An error that already has a kind is
// returned as it is.
func (l *core) problem(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	var ours *fleetscore.Error
	if errors.As(err, &ours) {
		if ours.Op == "" {
			ours.Op, ours.Subject = op, subject
		}
		return err
	}
	if errors.Is(err, sql.ErrNoRows) {
		what := op[strings.LastIndexByte(op, ' ')+1:] // such as job in "find job"
		missing := fleetscore.Errorf(fleetscore.NotFound, op, subject, "there is no such %s", what)
		switch what {
		case "job":
			return missing.WithHint("fleetscore job list shows all jobs; jobs older than their pipeline's history are removed")
		case "token", "node":
			return missing.WithHint("fleetscore %s list shows all %ss", what, what)
		}
		return missing
	}
	if e := l.dialect.problem(op, subject, err); e != nil {
		return e
	}
	return fleetscore.Wrap(op, subject, err)
}

// micros is how a time is kept: 0 is the zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return int64(fleetscore.MicrosOf(t))
}

func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return fleetscore.Micros(us).Time()
}

// Each migration is NUMBER_NAME.sql, for every engine, followed by
// NUMBER_NAME.ENGINE.sql if there is one.
//
//go:embed migrations/*.sql
var migrations embed.FS

var migrationName = regexp.MustCompile(`^([0-9]+)_[a-z_]+(?:\.([a-z]+))?\.sql$`)

// steps are the texts of an engine's migrations, by number.
func steps(d dialect) (map[int64]string, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(names, func(a, b string) int {
		return strings.Compare(strings.TrimSuffix(a, ".sql"), strings.TrimSuffix(b, ".sql"))
	})
	out := map[int64]string{}
	for _, name := range names {
		parts := migrationName.FindStringSubmatch(strings.TrimPrefix(name, "migrations/"))
		if parts == nil {
			return nil, fmt.Errorf("a migration is called %s", name)
		}
		number, err := strconv.ParseInt(parts[1], 10, 64)
		if err != nil {
			return nil, err
		}
		text, err := migrations.ReadFile(name)
		if err != nil {
			return nil, err
		}
		switch parts[2] {
		case "":
			out[number] += d.schema(string(text))
		case d.name():
			out[number] += string(text)
		}
	}
	return out, nil
}

// newest stands for the version of the tables that this release makes.
const newest = 0

// migrate brings the tables to a version. Tables of a newer release are refused.
func migrate(ctx context.Context, d dialect, kind goose.Dialect, db *sql.DB, to int64, options ...goose.ProviderOption) error {
	texts, err := steps(d)
	if err != nil {
		return err
	}
	var all []*goose.Migration
	for number, text := range texts {
		up := func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, text)
			return err
		}
		all = append(all, goose.NewGoMigration(number, &goose.GoFunc{RunTx: up}, nil))
	}
	p, err := goose.NewProvider(kind, db, nil, append(options, goose.WithGoMigrations(all...), goose.WithDisableGlobalRegistry(true))...)
	if err != nil {
		return err
	}
	have, known, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if max(have, to) > known {
		return newer(max(have, to), known)
	}
	if to == newest {
		to = known
	}
	_, err = p.UpTo(ctx, to)
	return err
}

// newer refuses tables of a newer release.
func newer(have, known int64) error {
	return fleetscore.Errorf(fleetscore.Conflict, "", "", "its tables have version %d, this release knows up to %d", have, known).
		WithHint("it was written by a newer release: start that one")
}

// reading reads nodes and what their signs of life say. If signs of life were written in between, they may be neither in
// the rows that were read before nor among those that wait, so it reads again.
func (g *signs) reading(read func()) {
	writes := func() int {
		if g == nil {
			return 0 // of a copy
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.writes
	}
	for before, now := -1, writes(); before != now; {
		before = now
		read()
		now = writes()
	}
}
