package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"
	sqlite "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
)

// SQLite is a ledger in a file.
type SQLite struct {
	core // reads by several connections, which can't write, and writes by one: writers take turns
	lock *os.File
}

var _ Ledger = (*SQLite)(nil)

// readers is how many queries may run beside each other.
const readers = 4

// Open opens the ledger in a file, and makes or updates its tables. Kind Conflict
// if another process has it open.
func Open(ctx context.Context, path string) (*SQLite, error) { return openFile(ctx, path, newest) }

func openFile(ctx context.Context, path string, version int64) (*SQLite, error) {
	const op = "open ledger"
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fleetscore.Wrap(op, path, err)
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fleetscore.Wrap(op, path, err)
	}
	l := &SQLite{core: core{events: &events{}, dialect: sqliteDialect{}, group: newGroup(), parsed: &parsed{}}}
	l.signs, l.endings = newSigns(&l.core), newLine[*ending](maxEndings, 0)
	if l.lock, err = Lock(path); err != nil {
		return nil, full(op, path, err)
	}
	if err := private(path); err != nil {
		return nil, errors.Join(full(op, path, fleetscore.Wrap(op, path, err)), l.Close())
	}
	if err := l.open(ctx, path, version); err != nil {
		return nil, errors.Join(full(op, path, l.problem(op, path, err)), l.Close())
	}
	return l, nil
}

// private lets only the file's owner read it, before the engine writes into it. The
// engine's files beside it take over its permissions.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// full makes an error that a full disk causes one of kind Exhausted: the engine
// reports it in many ways.
func full(op, path string, err error) error {
	const little = 1 << 20
	var st unix.Statfs_t
	if errors.Is(err, syscall.ENOSPC) || unix.Statfs(filepath.Dir(path), &st) == nil && uint64(st.Bavail)*uint64(st.Bsize) < little {
		return fleetscore.Errorf(fleetscore.Exhausted, op, path, "the disk is full: %w", err).WithHint("free space, or move the data folder")
	}
	return err
}

// sqliteName is a file as the engine is told of it.
func sqliteName(path string, options url.Values) string {
	return (&url.URL{Scheme: "file", Path: path, RawQuery: options.Encode()}).String()
}

func (l *SQLite) open(ctx context.Context, path string, version int64) (err error) {
	// WAL with synchronous=FULL: a committed transaction is synced before the
	// commit returns.
	dsn := func(more ...string) string {
		return sqliteName(path, url.Values{"_pragma": append([]string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"}, more...), "_txlock": {"immediate"}})
	}
	if l.write, err = sql.Open("sqlite", dsn()); err != nil {
		return err
	}
	l.write.SetMaxOpenConns(1)
	if err := migrate(ctx, l.dialect, goose.DialectSQLite3, l.write, version); err != nil {
		return err
	}
	if l.read, err = sql.Open("sqlite", dsn("query_only(1)")); err != nil {
		return err
	}
	l.read.SetMaxOpenConns(readers)
	l.read.SetMaxIdleConns(readers)
	return l.read.PingContext(ctx)
}

// Lock takes the lock beside the ledger's file, which ends with the process. A server whose
// ledger lies elsewhere takes the lock too, because it guards the folder.
func Lock(path string) (*os.File, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fleetscore.Wrap("open ledger", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fleetscore.Wrap("lock", name, err)
		}
		by := "another process"
		buf := make([]byte, 20)
		n, _ := f.ReadAt(buf, 0) // at the end of the file an error, and all there is
		if pid := strings.TrimSpace(string(buf[:n])); pid != "" {
			by = "process " + pid
		}
		return nil, fleetscore.Errorf(fleetscore.Conflict, "open ledger", path, "%s has it open", by).
			WithHint("only one server may use a data folder: stop the other one, or give this one its own --dir")
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fleetscore.Wrap("lock", name, err), f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, errors.Join(fleetscore.Wrap("lock", name, err), f.Close())
	}
	return f, nil
}

// Close ends all use and gives the file free. Closing twice does nothing more.
func (l *SQLite) Close() error {
	var errs []error
	if l.read != nil {
		l.signs.close()
	}
	for _, db := range []*sql.DB{l.read, l.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if l.lock != nil {
		_ = unix.Flock(int(l.lock.Fd()), unix.LOCK_UN)            // a process being forked just now holds the file for a moment longer
		if err := l.lock.Close(); !errors.Is(err, os.ErrClosed) { // after the database: the lock guards it
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sqliteDialect is SQLite's.
type sqliteDialect struct{}

func (sqliteDialect) name() string { return "sqlite" }

// withoutLocks takes the locks of rows away: writers take turns.
var withoutLocks = strings.NewReplacer(" FOR UPDATE SKIP LOCKED", "", " FOR UPDATE", "", "json_rows(", "json_each(")

func (sqliteDialect) text(statement string) string { return withoutLocks.Replace(statement) }

func (sqliteDialect) value(arg any) any { return arg }

func (sqliteDialect) schema(text string) string { return text }

func (sqliteDialect) named(*tx, string) error { return nil }

// again is never: who begins a transaction waits until it is alone.
func (sqliteDialect) again(error) bool { return false }

func (sqliteDialect) problem(op, subject string, err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff { // the upper bits say more than we need
		case lib.SQLITE_FULL:
			return fleetscore.Errorf(fleetscore.Exhausted, op, subject, "%w", err).WithHint("the disk is full: free space, or move the data folder")
		case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
			return fleetscore.Errorf(fleetscore.Corrupt, op, subject, "%w", err).WithHint("restore the ledger from a backup")
		case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_IOERR:
			return fleetscore.Errorf(fleetscore.Unavailable, op, subject, "%w", err)
		case lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN:
			return fleetscore.Errorf(fleetscore.Unavailable, op, subject, "%w", err).WithHint("check that the file and its folder can be written")
		case lib.SQLITE_CONSTRAINT:
			return fleetscore.Errorf(fleetscore.Conflict, op, subject, "it exists already: %w", err)
		}
	}
	return nil
}

// String names the engine, for logs.
func (l *SQLite) String() string {
	return fmt.Sprintf("SQLite ledger %s", strings.TrimSuffix(l.lock.Name(), ".lock"))
}

// group carries out the transactions of an engine with one writer. The transactions that
// wait while another one is being written are then carried out together, one after the
// other, and reach the disk with one sync. So the number of syncs doesn't grow with the
// number of callers, and nobody is answered before his own transaction is on disk. One that
// fails changes nothing and doesn't disturb the others.
//
// There is no goroutine: one of the callers carries out what waits.
type group struct{ line *line[*member] }

// maxGroup bounds how many transactions are carried out together, so that the first of
// them doesn't wait long for the last.
const maxGroup = 128

func newGroup() *group { return &group{newLine[*member](maxGroup, 0)} }

// member is one transaction.
type member struct {
	ctx    context.Context
	fn     func(*tx) error
	done   chan struct{} // closed when the fields below are set
	topics []Topic
	err    error
	broken any // what fn panicked with
}

func (m *member) ended() <-chan struct{} { return m.done }

// do carries out one transaction: all of it is on disk when do returns nil, none of it
// otherwise.
func (g *group) do(ctx context.Context, l *core, fn func(*tx) error) ([]Topic, error) {
	m := &member{ctx: ctx, fn: fn, done: make(chan struct{})}
	if err := g.line.do(ctx, m, l.writeAll); err != nil {
		return nil, err
	}
	if m.broken != nil {
		panic(m.broken)
	}
	return m.topics, m.err
}

// writeAll carries out transactions.
func (l *core) writeAll(members []*member) {
	ended := false
	defer func() {
		for _, m := range members {
			if !ended { // this goroutine ends within a member's function
				m.topics, m.err = nil, fleetscore.Errorf(fleetscore.Internal, "", "", "the transaction was given up")
			}
			close(m.done)
		}
	}()
	if len(members) > 1 && l.together(members) {
		ended = true
		return
	}
	for _, m := range members {
		m.run(func() (err error) {
			m.topics, err = l.once(m.ctx, m.fn)
			return err
		})
	}
	ended = true
}

// run keeps the error of a step and the value of its panic, which belong to the member's
// caller.
func (m *member) run(step func() error) {
	defer func() { m.broken = recover() }()
	m.topics = nil
	m.err = step()
}

// together carries out several transactions as one, each within a savepoint. It reports
// false, and changes nothing, if they have to be carried out one by one: some errors make
// the engine give up the whole transaction.
func (l *core) together(members []*member) bool {
	ctx := context.Background()   // an end of one caller's context must not end the others' work
	defer l.parsed.parse(l.write) // when the transaction has ended
	sqlTx, err := l.write.BeginTx(ctx, nil)
	if err != nil {
		return false
	}
	defer sqlTx.Rollback() // after the commit it does nothing
	all := conn{ctx, l, sqlTx, sqlTx}
	for _, m := range members {
		if m.err = context.Cause(m.ctx); m.err != nil {
			continue
		}
		if all.exec(`SAVEPOINT one`) != nil {
			return false
		}
		t := &tx{conn: conn{context.WithoutCancel(m.ctx), l, sqlTx, sqlTx}, events: map[Topic]bool{}}
		m.run(func() error { return m.fn(t) })
		if m.broken != nil {
			m.broken = nil
			return false // it panics again when it is carried out alone
		}
		if m.err != nil && all.exec(`ROLLBACK TO one`) != nil || all.exec(`RELEASE one`) != nil {
			return false
		}
		if m.err == nil {
			m.topics = t.topics()
		}
	}
	if err := sqlTx.Commit(); err != nil {
		for _, m := range members {
			if m.err == nil {
				m.topics, m.err = nil, err
			}
		}
	}
	return true
}

// parsed keeps statements that the engine has parsed, because it parses a text again each
// time that it gets one, which takes longer than many a statement itself. A nil parsed keeps
// none.
type parsed struct {
	read, write sync.Map // *sql.Stmt by text
	mu          sync.Mutex
	missing     map[string]bool // texts of transactions, to be parsed when no transaction holds the one connection
}

// statement is the parsed form of a text; nil if there is none yet.
func (p *parsed) statement(c conn, text string) *sql.Stmt {
	if p == nil {
		return nil
	}
	if c.tx == nil {
		if s, ok := p.read.Load(text); ok {
			return s.(*sql.Stmt)
		}
		s, err := c.l.read.PrepareContext(c.ctx, text)
		if err != nil {
			return nil // whoever asks finds the same error
		}
		if have, ok := p.read.LoadOrStore(text, s); ok {
			_ = s.Close() // another one was faster
			return have.(*sql.Stmt)
		}
		return s
	}
	if s, ok := p.write.Load(text); ok {
		return c.tx.StmtContext(c.ctx, s.(*sql.Stmt))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.missing == nil {
		p.missing = map[string]bool{}
	}
	p.missing[text] = true
	return nil
}

// parse parses what the last transaction missed.
func (p *parsed) parse(db *sql.DB) {
	if p == nil {
		return
	}
	p.mu.Lock()
	missing := p.missing
	p.missing = nil
	p.mu.Unlock()
	for text := range missing {
		if s, err := db.PrepareContext(context.Background(), text); err == nil { // otherwise the text is carried out as it is
			p.write.Store(text, s)
		}
	}
}

// line lets callers wait for each other: one of them carries out what all of them want,
// while further ones wait.
type line[M interface {
	comparable
	ended() <-chan struct{} // closed when it is carried out
}] struct {
	most int              // at most so many are carried out at once
	pace time.Duration    // after a turn that carried out several, the next one begins no sooner
	turn chan struct{}    // holds a value while somebody carries out
	rest <-chan time.Time // gets a value when the next turn may begin; nil if it may at once. Whoever has the turn may use it

	mu      sync.Mutex // guards waiting
	waiting []M        // in the order of their calls
}

func newLine[M interface {
	comparable
	ended() <-chan struct{}
}](most int, pace time.Duration) *line[M] {
	return &line[M]{most: most, pace: pace, turn: make(chan struct{}, 1)}
}

// do returns when m is carried out, or with an error and without anything done if ctx ends
// before its turn. carryOut must close what ended returns for each that it gets.
func (q *line[M]) do(ctx context.Context, m M, carryOut func([]M)) error {
	if ctx.Err() != nil { // otherwise chance would decide, because there may be a turn too
		return context.Cause(ctx)
	}
	q.mu.Lock()
	q.waiting = append(q.waiting, m)
	q.mu.Unlock()
	for {
		select {
		case <-m.ended():
			return nil
		default:
		}
		select {
		case <-m.ended():
			return nil
		case q.turn <- struct{}{}:
			q.take(carryOut)
		case <-ctx.Done():
			if q.leave(m) {
				return context.Cause(ctx)
			}
			<-m.ended() // it is being carried out
			return nil
		}
	}
}

// take carries out what waits and gives the turn back.
func (q *line[M]) take(carryOut func([]M)) {
	defer func() { <-q.turn }()
	if q.rest != nil {
		<-q.rest
		q.rest = nil
	}
	q.mu.Lock()
	n := min(len(q.waiting), q.most)
	some := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	q.mu.Unlock()
	if n > 1 && q.pace > 0 {
		q.rest = time.After(q.pace)
	}
	if n > 0 {
		carryOut(some)
	}
}

// leave takes one back that nobody has begun.
func (q *line[M]) leave(m M) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, w := range q.waiting {
		if w == m {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			return true
		}
	}
	return false
}
