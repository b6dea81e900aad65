package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/fleetscore/fleetscore"
)

// One of the processes that have a PostgreSQL ledger open leads: it holds the lease in
// the table leader, and only its transactions are accepted. Times are the database's, so
// that no machine's clock matters:
//
//	waits ── the lease is free or has run out: Lead takes it; the token grows ──► leads
//	leads ── Keep renews the lease each second ──► leads
//	leads ── Resign, or the process ends and the lease runs out ──► another one leads
//	leads ── frozen or cut off until another one leads: each transaction fails, Keep ends
//
// Each transaction of a process that leads checks the token and locks it against a
// change until its own end. So what a process does that was frozen, and goes on while
// another one leads, changes nothing.
const (
	// Patience is how long a server has to wait for the lease of one that was killed.
	Patience = leaseFor + 2*time.Second

	leaseFor   = 5 * time.Second
	renewEvery = time.Second
	lookEvery  = 500 * time.Millisecond
)

// holder is who holds the lease.
type holder struct {
	who  string
	left time.Duration // of the lease; negative if it has run out
}

func (p *Postgres) holder(ctx context.Context) (h holder, err error) {
	var seconds float64
	err = p.row(ctx, `SELECT who, EXTRACT(EPOCH FROM expires - clock_timestamp())::float8 FROM leader WHERE name = 'main'`).Scan(&h.who, &seconds)
	if errors.Is(err, sql.ErrNoRows) {
		return holder{left: -1}, nil
	}
	h.left = time.Duration(seconds * float64(time.Second))
	return h, err
}

// Lead makes this process the only one that uses the ledger: from then on each of its
// transactions is one of the leader. It waits for the lease of a process that was killed,
// and then fails with kind Conflict, naming the process that leads or shares the ledger.
// Before Lead has returned the ledger may only be read.
func (p *Postgres) Lead(ctx context.Context, patience time.Duration) error {
	const op = "open ledger"
	for began := time.Now(); ; {
		token, err := p.takeLease(ctx, alone)
		if err == nil {
			p.fence.Store(token)
			return nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return p.problem(op, p.name(), err)
		}
		if time.Since(began) > patience {
			h, err := p.holder(ctx)
			if err != nil {
				return p.problem(op, p.name(), err)
			}
			return fleetscore.Errorf(fleetscore.Conflict, op, p.name(), "the server %s uses it", h.who).
				WithHint("end that server; or start all servers with --shared, so that they share the work")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// Term is the ledger as the process uses it that leads several: each of its transactions
// is refused once another process leads. What any of the processes may do, leading or not,
// it does by the Postgres itself.
type Term struct {
	core
	p     *Postgres
	token int64
}

var _ Ledger = (*Term)(nil)

// Elect waits until this process leads those that share the ledger.
func (p *Postgres) Elect(ctx context.Context, log *slog.Logger) (*Term, error) {
	told, away := "", false
	for {
		token, err := p.takeLease(ctx, shared)
		if err == nil {
			return p.term(token), nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, sql.ErrNoRows) {
			var h holder
			if h, err = p.holder(ctx); err == nil && told != h.who {
				told = h.who
				log.Info("another server leads", "leader", h.who)
			}
		}
		if err != nil && !away {
			log.Warn("the ledger can't be reached; it is tried again", "error", p.problem("look who leads", p.name(), err))
		}
		away = err != nil
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

func (p *Postgres) term(token int64) *Term {
	t := &Term{p: p, token: token}
	t.core = core{events: p.events, read: p.read, write: p.write, dialect: p.dialect, signs: p.signs, endings: newLine[*ending](maxEndings, 0), tell: p.notify, guarded: func(x *tx) error { return p.check(x, token) }}
	return t
}

// Keep is Postgres.Keep for this term.
func (t *Term) Keep(ctx context.Context, log *slog.Logger) error { return t.p.keep(ctx, t.token, log) }

// Resign is Postgres.Resign for this term.
func (t *Term) Resign(ctx context.Context) error { return t.p.resign(ctx, t.token) }

// Close does nothing: a term is a view of the ledger that was opened.
func (t *Term) Close() error { return nil }

// How the process that leads uses the ledger.
const (
	alone  = false // no other process may use it
	shared = true
)

// takeLease takes the lease if nobody has it. sql.ErrNoRows if somebody has, or if this
// process wants to be alone and others share the ledger.
func (p *Postgres) takeLease(ctx context.Context, how bool) (token int64, err error) {
	sqlTx, err := p.write.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer sqlTx.Rollback() // after the commit it does nothing; otherwise err says what happened
	t := &tx{conn: conn{ctx, &p.core, sqlTx, sqlTx}}
	if err := t.lock(serversLock); err != nil {
		return 0, err
	}
	err = t.row(`INSERT INTO leader AS l (name, token, holder, who, store, expires, since)
		SELECT 'main', 1, ?1, ?2, '', clock_timestamp() + make_interval(secs => ?3), clock_timestamp() WHERE ?4 OR NOT EXISTS (SELECT 1 FROM servers WHERE `+lives+`)
		ON CONFLICT (name) DO UPDATE SET token = l.token + 1, holder = excluded.holder, who = excluded.who, expires = excluded.expires, since = excluded.since
		WHERE l.expires < clock_timestamp() RETURNING token`, p.id, p.who(), leaseFor.Seconds(), how).Scan(&token)
	if err != nil {
		return 0, err
	}
	return token, sqlTx.Commit()
}

// who says for people which process this is.
func (p *Postgres) who() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("with process %d on %s", os.Getpid(), host)
}

// Keep keeps the lease until ctx ends. It ends with an error of kind Conflict if another
// process leads. While the database is away it goes on trying: nobody else can take the
// lease meanwhile.
func (p *Postgres) Keep(ctx context.Context, log *slog.Logger) error {
	return p.keep(ctx, p.fence.Load(), log)
}

func (p *Postgres) keep(ctx context.Context, token int64, log *slog.Logger) error {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		limited, cancel := context.WithTimeout(ctx, leaseFor)
		n, err := conn{ctx: limited, l: &p.core, db: p.write}.change(`UPDATE leader SET expires = clock_timestamp() + make_interval(secs => ?) WHERE name = 'main' AND token = ? AND holder = ?`,
			leaseFor.Seconds(), token, p.id)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && n == 0:
			return p.superseded()
		case err != nil && !away:
			log.Error("the ledger can't be reached; it is tried again", "error", p.problem("keep the lease", p.name(), err))
		case err == nil && away:
			log.Info("the ledger can be reached again")
		}
		away = err != nil
	}
}

// superseded says that another process leads.
func (p *Postgres) superseded() error {
	return fleetscore.Errorf(fleetscore.Conflict, "keep the lease", p.name(), "another server leads since this one was frozen or cut off from the database; what it did meanwhile was refused").
		WithHint("start this server again, unless it goes on by itself as one of several")
}

// Resign lets another process lead at once. It does nothing if this one doesn't lead.
func (p *Postgres) Resign(ctx context.Context) error { return p.resign(ctx, p.fence.Swap(noToken)) }

func (p *Postgres) resign(ctx context.Context, token int64) error {
	_, err := conn{ctx: ctx, l: &p.core, db: p.write}.change(`UPDATE leader SET expires = clock_timestamp() - interval '1 second' WHERE name = 'main' AND token = ? AND holder = ?`, token, p.id)
	return p.problem("give the lease back", p.name(), err)
}

// noToken is the token of nobody: transactions fail after Resign.
const noToken = -1

// guard refuses a transaction of a process that led until another one took over, and
// keeps others from taking over until the transaction ends. A renewal of the lease
// doesn't wait for it, as it doesn't change the token.
func (p *Postgres) guard(t *tx) error {
	token := p.fence.Load()
	if token == 0 {
		return nil // it shares the ledger, or was never asked to lead, as in tests
	}
	return p.check(t, token)
}

func (p *Postgres) check(t *tx, token int64) error {
	var one int
	err := t.row(`SELECT 1 FROM leader WHERE name = 'main' AND token = ? AND holder = ? FOR KEY SHARE`, token, p.id).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return p.superseded()
	}
	return err
}

// BelongTo binds the ledger to a store, whose data its jobs and positions are about. Kind
// Conflict if it belongs to another one.
func (p *Postgres) BelongTo(ctx context.Context, store string) error {
	return p.update(ctx, "open store", store, func(t *tx) error {
		var have string
		if err := t.row(`SELECT store FROM leader WHERE name = 'main' FOR NO KEY UPDATE`).Scan(&have); err != nil || have == store {
			return err
		}
		if have != "" {
			return fleetscore.Errorf(fleetscore.Conflict, "open store", store, "the ledger %s belongs to the store %s", p.name(), have).
				WithHint("name that store with --store, or use another database")
		}
		return t.exec(`UPDATE leader SET store = ? WHERE name = 'main'`, store)
	})
}

// serversLock is held by transactions that change which processes use the ledger.
const serversLock = "servers"

// lives holds for servers that gave a sign of life within the time that a lease lasts.
const lives = `NOT ended AND seen > clock_timestamp() - interval '5 seconds'`

// ServerInfo is what a server that shares the ledger says of itself when it starts.
type ServerInfo struct {
	Name    string // unique among the servers that live
	URL     string // where it listens
	Version string // its release
	Nodes   string // SHA-256 of the secret of the nodes that it starts, in hexadecimal digits
}

// Server is a server that shares the ledger, or did so within the last hour.
type Server struct {
	ServerInfo
	Started, Seen time.Time     // by the database's clock
	Silent        time.Duration // since its last sign of life
	Live          bool          // it gave a sign of life just now
	Ended         bool          // it said goodbye
	Leads         bool
	LeadsSince    time.Time // zero if it doesn't lead
	Self          bool      // it is this process
	Report        []byte    // JSON, what it said last
}

// Join adds this process to those that share the ledger. It waits for the lease of a
// process that was killed. Kind Conflict if a process uses the ledger alone, or if a server
// of that name lives.
func (p *Postgres) Join(ctx context.Context, s ServerInfo) error {
	const op = "share the ledger"
	for began := time.Now(); ; {
		err := p.update(ctx, op, s.Name, func(t *tx) error {
			if err := t.lock(serversLock); err != nil {
				return err
			}
			var who string
			err := t.row(`SELECT who FROM leader WHERE expires > clock_timestamp() AND holder NOT IN (SELECT id FROM servers)`).Scan(&who)
			if err == nil {
				return fleetscore.Errorf(fleetscore.Conflict, op, p.name(), "the server %s uses it alone", who).
					WithHint("end that server, and start it again with --shared")
			}
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			var url string
			err = t.row(`SELECT url FROM servers WHERE name = ? AND `+lives, s.Name).Scan(&url)
			if err == nil {
				return fleetscore.Errorf(fleetscore.Conflict, op, s.Name, "a server of this name runs at %s", url).WithHint("give each server a name of its own with --name")
			}
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			if err := t.exec(`INSERT INTO leader (name, token, holder, who, store, expires) VALUES ('main', 0, '', '', '', '-infinity') ON CONFLICT (name) DO NOTHING`); err != nil {
				return err
			}
			if err := t.exec(`DELETE FROM servers WHERE name = ? OR seen < clock_timestamp() - interval '1 hour'`, s.Name); err != nil {
				return err
			}
			return t.exec(`INSERT INTO servers (id, name, url, version, nodes, report, started, seen, ended) VALUES (?, ?, ?, ?, ?, '{}', clock_timestamp(), clock_timestamp(), FALSE)`,
				p.id, s.Name, s.URL, s.Version, s.Nodes)
		})
		if !fleetscore.Conflict.Is(err) || time.Since(began) > Patience {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// Beat is a sign of life of this process, with what the others may know of it. It returns
// how far the database's clock is ahead of this machine's.
func (p *Postgres) Beat(ctx context.Context, report []byte) (ahead time.Duration, err error) {
	limited, cancel := context.WithTimeout(ctx, leaseFor)
	defer cancel()
	var now time.Time
	before := time.Now()
	err = conn{ctx: limited, l: &p.core, db: p.write}.row(`UPDATE servers SET seen = clock_timestamp(), report = ?, ended = FALSE WHERE id = ? RETURNING seen`, string(report), p.id).Scan(&now)
	if err != nil {
		return 0, p.problem("say that this server lives", p.name(), err)
	}
	return now.Sub(before.Add(time.Since(before) / 2)), nil
}

// Leave says that this process shares the ledger no more.
func (p *Postgres) Leave(ctx context.Context) error {
	return p.problem("leave", p.name(), conn{ctx: ctx, l: &p.core, db: p.write}.exec(`UPDATE servers SET ended = TRUE WHERE id = ?`, p.id))
}

// Servers lists the servers that share the ledger, by name, those included that ended
// within the last hour.
func (p *Postgres) Servers(ctx context.Context) ([]Server, error) {
	return query(ctx, &p.core, "list servers", "", func(scan func(...any) error) (s Server, err error) {
		var id string
		var since sql.NullTime
		var silent float64
		err = scan(&id, &s.Name, &s.URL, &s.Version, &s.Nodes, &s.Report, &s.Started, &s.Seen, &s.Ended, &silent, &since)
		s.Started, s.Seen = s.Started.UTC(), s.Seen.UTC()
		s.Silent = time.Duration(silent * float64(time.Second))
		s.Live, s.Leads, s.Self = !s.Ended && s.Silent < leaseFor, since.Valid, id == p.id
		if s.Leads {
			s.LeadsSince = since.Time.UTC()
		}
		return s, err
	}, `SELECT s.id, s.name, s.url, s.version, s.nodes, s.report, s.started, s.seen, s.ended, EXTRACT(EPOCH FROM clock_timestamp() - s.seen)::float8,
		(SELECT since FROM leader WHERE name = 'main' AND holder = s.id AND expires > clock_timestamp()) FROM servers AS s ORDER BY s.name, s.started`)
}
