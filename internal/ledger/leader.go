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

// Lead waits until this process leads. With patience it waits that long at most, and then
// fails with kind Conflict, naming the process that leads; 0 means no limit. Before Lead
// has returned the ledger may only be read.
func (p *Postgres) Lead(ctx context.Context, patience time.Duration, log *slog.Logger) error {
	const op = "open ledger"
	began, told := time.Now(), ""
	for {
		h, err := p.holder(ctx)
		if err == nil && h.left < 0 {
			var token int64
			token, err = p.takeLease(ctx)
			if err == nil {
				p.fence.Store(token)
				return nil
			}
			if errors.Is(err, sql.ErrNoRows) {
				continue // another one was faster
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && patience > 0:
			return p.problem(op, p.name(), err)
		case err != nil:
			log.Warn("the ledger can't be reached; this server goes on waiting", "error", p.problem(op, p.name(), err))
		case patience > 0 && time.Since(began) > patience:
			return fleetscore.Errorf(fleetscore.Conflict, op, p.name(), "the server %s uses it", h.who).
				WithHint("end that server; or start both with --standby, so that this one takes over when the other one ends")
		case told != h.who:
			told = h.who
			log.Info("another server leads; this one waits to take over", "leader", h.who)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

func (p *Postgres) takeLease(ctx context.Context) (token int64, err error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	err = p.row(ctx, `INSERT INTO leader AS l (name, token, holder, who, store, expires) VALUES ('main', 1, ?, ?, '', clock_timestamp() + make_interval(secs => ?))
		ON CONFLICT (name) DO UPDATE SET token = l.token + 1, holder = excluded.holder, who = excluded.who, expires = excluded.expires
		WHERE l.expires < clock_timestamp() RETURNING token`, p.id, fmt.Sprintf("with process %d on %s", os.Getpid(), host), leaseFor.Seconds()).Scan(&token)
	return token, err
}

// Keep keeps the lease until ctx ends. It ends with an error of kind Conflict if another
// process leads. While the database is away it goes on trying: nobody else can take the
// lease meanwhile.
func (p *Postgres) Keep(ctx context.Context, log *slog.Logger) error {
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
		n, err := conn{limited, &p.core, p.write}.change(`UPDATE leader SET expires = clock_timestamp() + make_interval(secs => ?) WHERE name = 'main' AND token = ? AND holder = ?`,
			leaseFor.Seconds(), p.fence.Load(), p.id)
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
		WithHint("start this server again; with --standby it waits until it may take over")
}

// Resign lets another process lead at once. It does nothing if this one doesn't lead.
func (p *Postgres) Resign(ctx context.Context) error {
	_, err := conn{ctx, &p.core, p.write}.change(`UPDATE leader SET expires = clock_timestamp() - interval '1 second' WHERE name = 'main' AND token = ? AND holder = ?`, p.fence.Swap(noToken), p.id)
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
		return nil // this opening was never asked to lead, as in tests
	}
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
