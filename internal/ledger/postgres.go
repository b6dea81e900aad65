package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/fleetscore/fleetscore"
)

// PostgresConfig says which database to use.
type PostgresConfig struct {
	URL       string        // postgres://USER:PASSWORD@HOST:PORT/DATABASE, a secret
	PollEvery time.Duration // how often watchers look by themselves, should a notification be lost; 0 means 5 s
}

// Postgres is a ledger in a PostgreSQL database, which several processes may have
// open. Its goroutines, which carry events between the processes, end with Close.
type Postgres struct {
	core
	cfg   *pgx.ConnConfig
	id    string       // of this opening, so that its own notifications and its lease are recognised
	fence atomic.Int64 // the token by which it leads; 0 before
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu     sync.Mutex // guards untold
	untold map[Topic]bool
	wake   chan struct{} // something is untold
}

var _ Ledger = (*Postgres)(nil)

const (
	connections     = 16               // at most so many of one process, besides the one that listens
	idleConnections = 8                // at most so many stay open without use
	connectWithin   = 10 * time.Second // unless the address says otherwise
	// A process that is frozen or cut off inside a transaction holds its locks no longer
	// than this.
	idleTransaction = "5s"
	channel         = "fleetscore" // of notifications
)

// OpenPostgres opens the ledger in a database, and makes or updates its tables.
// Errors and names never hold the address's password.
func OpenPostgres(ctx context.Context, c PostgresConfig) (*Postgres, error) {
	return openDatabase(ctx, c, newest)
}

// parseURL reads the address of a database.
func parseURL(address string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(address)
	if err != nil { // its text may hold the password
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open ledger", "PostgreSQL", "the address of the database can't be read").
			WithHint("write postgres://USER:PASSWORD@HOST:PORT/DATABASE; in the password, characters such as @ : / # have to be written as %%40 %%3A %%2F %%23")
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectWithin
	}
	for name, value := range map[string]string{"application_name": "fleetscore", "idle_in_transaction_session_timeout": idleTransaction} {
		if _, set := cfg.RuntimeParams[name]; !set {
			cfg.RuntimeParams[name] = value
		}
	}
	return cfg, nil
}

func openDatabase(ctx context.Context, c PostgresConfig, version int64) (*Postgres, error) {
	const op = "open ledger"
	cfg, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	p := &Postgres{cfg: cfg, id: rand.Text(), untold: map[Topic]bool{}, wake: make(chan struct{}, 1)}
	p.dialect, p.events, p.signs, p.endings = postgresDialect{}, &events{}, newSigns(&p.core), newLine[*ending](maxEndings, 0)
	p.write = stdlib.OpenDB(*cfg)
	p.write.SetMaxOpenConns(connections)
	p.write.SetMaxIdleConns(idleConnections)
	p.read, p.tell, p.guarded = p.write, p.notify, p.guard
	listener, err := p.open(ctx, version)
	if err != nil {
		return nil, errors.Join(p.problem(op, p.name(), err), p.write.Close())
	}
	if c.PollEvery <= 0 {
		c.PollEvery = 5 * time.Second
	}
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	p.done.Go(func() { p.hear(ctx, listener) })
	p.done.Go(func() { p.speak(ctx) })
	p.done.Go(func() { p.poll(ctx, c.PollEvery) })
	return p, nil
}

func (p *Postgres) open(ctx context.Context, version int64) (listener *pgx.Conn, err error) {
	var encoding, commit string
	if err := p.write.QueryRowContext(ctx, `SELECT current_setting('server_encoding'), current_setting('synchronous_commit')`).Scan(&encoding, &commit); err != nil {
		return nil, err
	}
	if commit == "off" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "", "", "synchronous_commit is off, so a crash of the database would lose what it has confirmed").
			WithHint("switch it on for Fleetscore's user: ALTER ROLE ... SET synchronous_commit = on")
	}
	if encoding != "UTF8" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "", "", "the database keeps text as %s", encoding).
			WithHint("create a database for Fleetscore: CREATE DATABASE fleetscore ENCODING 'UTF8' TEMPLATE template0")
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, p.dialect, goose.DialectPostgres, p.write, version, goose.WithSessionLocker(locker)); err != nil {
		return nil, err
	}
	return p.listen(ctx)
}

// name says which database it is, without the password.
func (p *Postgres) name() string {
	if strings.HasPrefix(p.cfg.Host, "/") { // a folder with a socket
		return p.cfg.Database + " in " + p.cfg.Host
	}
	return fmt.Sprintf("%s on %s", p.cfg.Database, net.JoinHostPort(p.cfg.Host, fmt.Sprint(p.cfg.Port)))
}

// String names the engine, for logs.
func (p *Postgres) String() string { return "PostgreSQL ledger " + p.name() }

// Close ends all use. Closing twice does nothing more.
func (p *Postgres) Close() error {
	p.signs.close()
	p.stop()
	p.done.Wait()
	return p.write.Close()
}

// notification is how processes tell each other of events.
type notification struct {
	From   string  `json:"from"`
	Topics []Topic `json:"topics"`
}

// notify notes events for the other processes. It doesn't wait for the database: a
// notification that is lost is made up for by polling.
func (p *Postgres) notify(topics []Topic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range topics {
		p.untold[t] = true
	}
	select {
	case p.wake <- struct{}{}:
	default: // speak looks anyway
	}
}

// speak tells the other processes. What comes while it does goes together.
func (p *Postgres) speak(ctx context.Context) {
	const atOnce = 3000 // bytes of topics, well below the 8000 that a notification may have
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		p.mu.Lock()
		untold := p.untold
		p.untold = map[Topic]bool{}
		p.mu.Unlock()
		n, size := notification{From: p.id}, 0
		for t := range untold {
			delete(untold, t)
			n.Topics = append(n.Topics, t)
			if size += len(t); size < atOnce && len(untold) > 0 {
				continue
			}
			text, err := json.Marshal(n)
			if err == nil {
				_, _ = p.write.ExecContext(ctx, `SELECT pg_notify($1, $2)`, channel, string(text)) // if it is lost, polling makes up for it
			}
			n.Topics, size = nil, 0
		}
	}
}

func (p *Postgres) listen(ctx context.Context) (*pgx.Conn, error) {
	c, err := pgx.ConnectConfig(ctx, p.cfg)
	if err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, `LISTEN `+channel); err != nil {
		return nil, errors.Join(err, c.Close(ctx))
	}
	return c, nil
}

// hear puts the events of other processes. When its connection is lost it makes
// another, and tells every watcher to look, as it may have missed something.
func (p *Postgres) hear(ctx context.Context, c *pgx.Conn) {
	const again = time.Second
	for {
		p.take(ctx, c)
		for c = nil; c == nil; {
			if ctx.Err() != nil {
				return
			}
			var err error
			if c, err = p.listen(ctx); err != nil {
				c = nil
				select {
				case <-ctx.Done():
				case <-time.After(again):
				}
			}
		}
		p.everyone(true)
	}
}

// take puts what a connection brings until it is lost, and closes it.
func (p *Postgres) take(ctx context.Context, c *pgx.Conn) {
	for {
		got, err := c.WaitForNotification(ctx)
		if err != nil {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			_ = c.Close(closing) // it may be broken
			cancel()
			return
		}
		var n notification
		if json.Unmarshal([]byte(got.Payload), &n) == nil && n.From != p.id {
			p.events.Put(n.Topics...)
		}
	}
}

// poll makes every watcher look now and then, except nodes that wait for tasks: those
// look at their state when they ask for tasks again.
func (p *Postgres) poll(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			p.everyone(false)
		}
	}
}

// postgresDialect is PostgreSQL's. It reads each row as it is when a statement begins,
// and transactions lock what they build on.
type postgresDialect struct{}

func (postgresDialect) name() string { return "postgres" }

var (
	parameter = regexp.MustCompile(`\?[0-9]*`)
	jsonEach  = regexp.MustCompile(`json_each\((\?[0-9]*)\) AS (\w+)`)
	jsonRows  = regexp.MustCompile(`json_rows\((\?[0-9]*)\) AS (\w+)`)
	columns   = regexp.MustCompile(`\b(INTEGER PRIMARY KEY AUTOINCREMENT|INTEGER|REAL|TEXT|BLOB)\b|\) WITHOUT ROWID`)
)

// text numbers the parameters.
func (postgresDialect) text(statement string) string {
	statement = jsonEach.ReplaceAllString(statement, `json_array_elements_text(CAST($1 AS json)) AS $2(value)`)
	statement = jsonRows.ReplaceAllString(statement, `json_array_elements(CAST($1 AS json)) AS $2(value)`)
	n := 0
	return parameter.ReplaceAllStringFunc(statement, func(p string) string {
		if p != "?" {
			return "$" + p[1:]
		}
		n++
		return fmt.Sprint("$", n)
	})
}

// value makes text that the engine refuses such that it takes it: reasons of failures
// may hold any bytes.
func (postgresDialect) value(arg any) any {
	if s, ok := arg.(string); ok {
		return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\ufffd"), "\ufffd")
	}
	return arg
}

// schema names the engine's types. Text is compared byte by byte, as everywhere in
// Fleetscore, whatever language the database was made for.
func (postgresDialect) schema(text string) string {
	types := map[string]string{
		"INTEGER PRIMARY KEY AUTOINCREMENT": "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
		"INTEGER":                           "BIGINT",
		"REAL":                              "DOUBLE PRECISION",
		"TEXT":                              `TEXT COLLATE "C"`,
		"BLOB":                              "BYTEA",
		") WITHOUT ROWID":                   ")",
	}
	return columns.ReplaceAllStringFunc(text, func(word string) string { return types[word] })
}

func (postgresDialect) named(t *tx, lock string) error {
	return t.exec(`SELECT pg_advisory_xact_lock(hashtextextended(?, 0))`, "fleetscore "+lock)
}

// again holds for transactions that would have waited for each other for ever.
func (postgresDialect) again(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01")
}

// oneLine is an error whose text has no line breaks: the driver's has a line for each address.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

func (e oneLine) Unwrap() error { return e.error }

func (postgresDialect) problem(op, subject string, err error) error {
	var (
		e       *pgconn.PgError
		connect *pgconn.ConnectError
		network net.Error
	)
	unavailable := func(hint string) error {
		return fleetscore.Errorf(fleetscore.Unavailable, op, subject, "%w", err).WithHint("%s", hint)
	}
	const away = "check that the database runs and can be reached; the server goes on by itself when it can"
	switch {
	case errors.Is(err, context.Canceled):
		return nil
	case errors.As(err, &e):
	case errors.As(err, &connect), errors.As(err, &network), errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), pgconn.SafeToRetry(err):
		return fleetscore.Errorf(fleetscore.Unavailable, op, subject, "the database of the ledger can't be reached: %w", oneLine{err}).WithHint(away)
	default:
		return nil
	}
	switch class := e.Code[:min(2, len(e.Code))]; {
	case e.Code == "23505":
		return fleetscore.Errorf(fleetscore.Conflict, op, subject, "it exists already: %w", err)
	case e.Code == "53100":
		return fleetscore.Errorf(fleetscore.Exhausted, op, subject, "%w", err).WithHint("the disk of the database is full: free space there")
	case class == "XX":
		return fleetscore.Errorf(fleetscore.Corrupt, op, subject, "%w", err).WithHint("ask who runs the database; it may have to be restored from a backup")
	case class == "28", e.Code == "3D000":
		return unavailable("check user, password and name of the database in the address")
	case e.Code == "42501":
		return unavailable("the user of the address has to own the database, so that tables can be made in it")
	case e.Code == "25006":
		return unavailable("this database only reads: name the one that writes in the address")
	case class == "08", class == "53", class == "57", class == "40", class == "55", e.Code == "25P03":
		return unavailable(away)
	}
	return nil
}
