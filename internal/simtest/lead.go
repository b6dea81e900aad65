package simtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/fleet/syncer"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/pool"
)

// In some runs two servers share the ledger, as servers do with --shared: both take the
// messages of nodes and what people ask for, and one of them leads, by a lease with a token
// that grows (docs/decisions/0007-one-leader.md). The lease and the check of its token stand
// here for what PostgreSQL does; its conformance is tested against real ones. What runs by
// it, and what the other server does meanwhile, is the real thing. Both take readings, each as a source of its own in the log,
// and the one that leads runs the query. Servers are killed and
// frozen, so that one that led goes on at any step of its work after another one has led.

// The times of package ledger.
const (
	leaseFor   = 5 * time.Second
	renewEvery = time.Second
	lookEvery  = 500 * time.Millisecond
)

// lease says who leads.
type lease struct {
	token   int64
	holder  *process
	expires time.Time
}

// startAll starts as many servers as the run has. Servers that share the work append to one
// log, which in reality lies on NATS servers.
func (w *world) startAll() (err error) {
	if w.several && w.streams() {
		if w.hub, err = hub.Open(context.Background(), hub.Config{Dir: w.hubDir(), Partitions: partitions}, hub.Deps{Log: w.log}); err != nil {
			return err
		}
	}
	err = w.start()
	if w.several && err == nil {
		err = w.start()
	}
	return err
}

// first is the server that started before the others; nil if none runs.
func (w *world) first() *server {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.live) == 0 {
		return nil
	}
	return w.live[0]
}

// freeze freezes a server, mostly the one that leads, for longer than its lease lasts or
// not. Everything that it had asked for goes on when it wakes.
func (w *world) freeze(_ context.Context, s *server) error {
	w.mu.Lock()
	for _, x := range w.live {
		if x.process == w.lease.holder && w.rnd.IntN(4) > 0 {
			s = x
		}
	}
	w.mu.Unlock()
	d := w.within(30 * time.Second)
	w.conductor.note(fmt.Sprint("freeze of ", s.process.name, " for ", d))
	s.process.freeze(d)
	time.Sleep(d)
	return nil
}

// freezeAtStep freezes a server in the middle of its work, until another one leads.
func (w *world) freezeAtStep(context.Context, *server) error {
	kinds := []string{"ledger UpdateNode", "ledger UpdateNode", "ledger UpdateNode", "start node", "ledger PlanJob", "ledger EndAttempt", "ledger UpdateJob", "ledger DecideSchedule", "ledger TakeBack", "store create", "store put", "store delete"}
	t := &trap{kind: kinds[w.rnd.IntN(len(kinds))], left: w.rnd.IntN(3), freeze: leaseFor + w.within(15*time.Second)}
	if w.ambush(t) {
		time.Sleep(t.freeze)
	}
	return nil
}

// frozen freezes the process that a trap was set for, if the trap freezes.
func (w *world) frozen(p *process) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.trap == nil || w.trap.freeze == 0 {
		return false
	}
	p.freeze(w.trap.freeze)
	close(w.trap.struck)
	w.trap = nil
	return true
}

// term is what a server does while it leads, or always if it is alone.
type term struct {
	w       *world
	server  *server
	fleets  *syncer.Syncer
	blobs   *blobs
	catalog *catalog.Catalog
	now     *clock.Clock
}

// services are what only one server does, by its view of the ledger.
func (t *term) services(l ledger.Ledger) ([]func(context.Context) error, error) {
	s := t.server
	pools, err := pool.New(pool.Config{}, pool.Deps{Ledger: l, Store: t.blobs, Log: t.w.log, Now: t.now.Now,
		Providers: map[string]pool.Provider{"simulated": t.w.providerOf(s.process, l)}})
	if err != nil {
		return nil, err
	}
	upkeep, err := t.w.maintenance(l, t.blobs, t.catalog, t.now)
	out := []func(context.Context) error{t.fleets.Run, s.scheduler.With(l).Run, s.broker.With(l).Tend, s.logs.Run, pools.Run, upkeep}
	if err == nil && t.w.several && t.w.streams() {
		var query func(context.Context) error
		query, err = t.w.aggregates(s, t.now, t.catalog)
		out = append(out, query)
	}
	return out, err
}

// leading waits until the server leads and works until it leads no more, again and again.
func (t *term) leading(ctx context.Context) error {
	p := t.server.process
	for ctx.Err() == nil {
		token, ok := t.w.takeLease(ctx, p)
		if !ok {
			sleep(ctx, lookEvery)
			continue
		}
		t.w.conductor.note(fmt.Sprint(p.name, " leads with token ", token))
		services, err := t.services(t.w.termOf(p, token))
		if err != nil {
			return err
		}
		during, end := context.WithCancel(ctx)
		var all sync.WaitGroup
		for _, run := range services {
			all.Go(func() { _ = run(during) }) // it ends with its context
		}
		t.w.keepLease(during, p, token)
		end()
		all.Wait()
		t.w.resign(p, token)
		sleep(ctx, time.Second)
	}
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// takeLease takes the lease if nobody has it.
func (w *world) takeLease(ctx context.Context, p *process) (token int64, ok bool) {
	if _, err := w.reached(ctx, p, "ledger Elect", ""); err != nil {
		return 0, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lease.expires.After(time.Now()) {
		return 0, false
	}
	w.lease = lease{w.lease.token + 1, p, time.Now().Add(leaseFor)}
	return w.lease.token, true
}

// keepLease renews the lease until ctx ends or another server leads.
func (w *world) keepLease(ctx context.Context, p *process, token int64) {
	for sleep(ctx, renewEvery); ctx.Err() == nil; sleep(ctx, renewEvery) {
		if _, err := w.reached(ctx, p, "ledger Keep", ""); err != nil {
			continue
		}
		w.mu.Lock()
		ours := w.lease.token == token
		if ours {
			w.lease.expires = time.Now().Add(leaseFor)
		}
		w.mu.Unlock()
		if !ours {
			w.conductor.note(p.name + " leads no more")
			return
		}
	}
}

// resign lets another server lead at once. A server that was killed says nothing.
func (w *world) resign(p *process, token int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !p.dead() && w.lease.token == token {
		w.lease.expires = time.Time{}
	}
}

// leads tells whether a token is that of the server that leads.
func (w *world) leads(token int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lease.token == token
}

// termOf is the ledger as a server uses it that leads: what it writes is refused once
// another one leads.
func (w *world) termOf(by *process, token int64) ledger.Ledger {
	return w.ledgerBy(by, func(method string) error {
		if !writes[method] || w.leads(token) || w.mutant == forgetsToken {
			return nil
		}
		return fleetscore.Errorf(fleetscore.Conflict, method, by.name, "another server leads")
	})
}

// pieces are the logs of attempts that haven't been moved into the store, in memory.
type pieces struct {
	mu   sync.Mutex // guards what follows
	of   map[fleetscore.LeaseID]map[string][]byte
	jobs map[fleetscore.LeaseID]fleetscore.JobID
}

func newPieces() *pieces {
	return &pieces{of: map[fleetscore.LeaseID]map[string][]byte{}, jobs: map[fleetscore.LeaseID]fleetscore.JobID{}}
}

// piecesOf is the pieces as one server sees them.
type piecesOf struct {
	w  *world
	by *process
}

// AddPiece implements ledger.Pieces.
func (p *piecesOf) AddPiece(ctx context.Context, id fleetscore.LeaseID, stream string, at int64, data []byte) error {
	if _, err := p.w.reached(ctx, p.by, "ledger AddPiece", string(id)); err != nil {
		return err
	}
	a, job, err := p.w.ledger.Attempt(context.WithoutCancel(ctx), id)
	if err != nil {
		return err
	}
	x := p.w.pieces
	x.mu.Lock()
	defer x.mu.Unlock()
	have := int64(len(x.of[id][stream]))
	if a.Ended != nil || at > have {
		return fleetscore.Errorf(fleetscore.Conflict, "add piece", string(id), "the attempt is %s, and %d bytes are there", a.State, have)
	}
	if x.of[id] == nil {
		x.of[id], x.jobs[id] = map[string][]byte{}, job
	}
	if at+int64(len(data)) > have {
		x.of[id][stream] = append(x.of[id][stream], data[have-at:]...)
	}
	return nil
}

// Piece implements ledger.Pieces.
func (p *piecesOf) Piece(ctx context.Context, id fleetscore.LeaseID, stream string, from int64) ([]byte, error) {
	if _, err := p.w.reached(ctx, p.by, "ledger Piece", string(id)); err != nil {
		return nil, err
	}
	x := p.w.pieces
	x.mu.Lock()
	defer x.mu.Unlock()
	data := x.of[id][stream]
	return slices.Clone(data[min(from, int64(len(data))):]), nil
}

// PieceSizes implements ledger.Pieces.
func (p *piecesOf) PieceSizes(ctx context.Context, job fleetscore.JobID) (map[fleetscore.LeaseID]map[string]int64, error) {
	if _, err := p.w.reached(ctx, p.by, "ledger PieceSizes", string(job)); err != nil {
		return nil, err
	}
	x := p.w.pieces
	x.mu.Lock()
	defer x.mu.Unlock()
	out := map[fleetscore.LeaseID]map[string]int64{}
	for id, streams := range x.of {
		if x.jobs[id] != job {
			continue
		}
		out[id] = map[string]int64{}
		for name, data := range streams {
			out[id][name] = int64(len(data))
		}
	}
	return out, nil
}

// PieceLeases implements ledger.Pieces.
func (p *piecesOf) PieceLeases(ctx context.Context) ([]fleetscore.LeaseID, error) {
	if _, err := p.w.reached(ctx, p.by, "ledger PieceLeases", ""); err != nil {
		return nil, err
	}
	x := p.w.pieces
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Sorted(maps.Keys(x.of)), nil
}

// RemovePieces implements ledger.Pieces.
func (p *piecesOf) RemovePieces(ctx context.Context, id fleetscore.LeaseID) error {
	if _, err := p.w.reached(ctx, p.by, "ledger RemovePieces", string(id)); err != nil {
		return err
	}
	x := p.w.pieces
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.of, id)
	delete(x.jobs, id)
	return nil
}
