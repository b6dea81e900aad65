// Package simtest runs a whole server, or two that share a ledger, in one process, in no time and at random: devices
// that send readings, gateway, hub, query, scheduler, maintenance, a ledger in SQLite, a
// store in memory, a pool and its nodes, on a clock that jumps to the next moment at
// which anything happens. Everything that passes between them can be slow, fail, get
// lost, come late or come twice, and servers and nodes are killed. Of two
// servers the one that leads is also frozen, until the other one has led. Afterwards the
// promises are checked that hold whatever happens:
//
//   - Each sensor of a job has one outcome, each due time has one outcome, and no node or
//     lease is left.
//   - Schedules keep their rules for overlaps, catching up and pauses; the intervals of their
//     jobs join, whatever was skipped, replaced, triggered or submitted. Tasks of a higher
//     priority are given out first. A rerun keeps the outcomes of the other sensors.
//   - Each key and time has one row, in datasets and predictions, and it is the newest
//     job's. No job is committed twice.
//   - Each acknowledged reading counts in exactly one row or is kept as late; rows equal
//     those of a slow twin that reads the log; no job is planned before its rows are there, or its
//     deadline has passed.
//   - A model that ends the process of its node costs its own sensor alone, and only such a
//     model is said to do harm.
//   - A pool has no more nodes than it may have, whoever led. A formula's evaluations ask for
//     what it says, and one that fails leaves the pool as it is.
//   - No machine is left that no node needs, although the commands that start, stop and list
//     machines fail and lie.
//   - Maintenance removes nothing that a job still reads or writes, and nothing that a
//     reader saw within the time of grace.
//
// Faults that are built in on purpose (mutants.go) show that these checks find what they
// are made for: a test expects that the seeds of "make test" find each of them.
//
// A run depends on its seed alone, so that a failing one can be repeated:
//
//	go test ./internal/simtest -run Simulation -seed 17
//
// Why runs repeat: goroutines meet only where they ask something of another part.
// Each such request waits in the conductor until no goroutine can go on. Then the
// conductor draws how long the request takes and what becomes of it, and lets the one
// that is next go on alone.
package simtest

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
)

// process is what can be killed: a server or a node. A killed one does nothing more
// that anybody could see.
type process struct {
	name string
	life context.Context // ends when the process is killed, or has ended by itself
	end  context.CancelFunc

	thaws atomic.Int64 // nanoseconds since 1970: until then it is frozen, and nothing that it asks goes on
}

func newProcess(name string) *process {
	p := &process{name: name}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

func (p *process) dead() bool { return p.life.Err() != nil }

// freeze stops a process for a while, as when its machine is suspended. It notices nothing.
func (p *process) freeze(d time.Duration) { p.thaws.Store(time.Now().Add(d).UnixNano()) }

// thawed is when the process goes on; a time that has passed if it isn't frozen.
func (p *process) thawed() time.Time { return time.Unix(0, p.thaws.Load()) }

// errDead is what a killed process gets, which nobody will ever see.
func errDead(p *process, op string) error {
	return fleetscore.Errorf(fleetscore.Unavailable, op, p.name, "the process was killed")
}

// fate is what becomes of a request.
type fate int

const (
	served fate = iota
	failed      // it isn't carried out, and says so
	lost        // it isn't carried out, and no answer comes
	broken      // the answer stops in the middle
	twice       // it is carried out, and once more later
	fatal       // whoever asks is killed, just before it is carried out
	late        // a write: it fails, and is carried out all the same some time later
	again       // a write: its answer is lost on the way, so that it is sent once more
)

// request waits to go on.
type request struct {
	by      *process
	kind    string // what is asked, such as "store put"
	subject string
	message int       // the number of a node's message that it serves; 0 if none
	at      time.Time // when it goes on
	fate    fate
	gone    bool // whoever asked waits no more
	proceed chan struct{}
}

func (r *request) String() string { return r.by.name + ": " + r.kind + " " + r.subject }

// messageKey is the key of a message's number in the context of what serves it. Without
// it, a server that serves a message and its repetition would ask for the same things at
// the same time, and chance would say which of the two gets the task.
type messageKey struct{}

// same reports whether nothing tells two requests apart.
func (r *request) same(o *request) bool { return r.String() == o.String() && r.message == o.message }

// odds says how long a request of a kind takes and what becomes of it.
type odds func(rnd *rand.Rand, r *request) (time.Duration, fate)

// conductor lets one request at a time go on.
type conductor struct {
	rnd   *rand.Rand
	odds  odds
	trace func(string) // nil forgets

	arrived chan struct{} // has a value when there are new requests

	mu     sync.Mutex // guards what follows
	fresh  []*request // not judged yet
	agenda []*request

	steps int
	sum   uint64 // of all that went on: equal runs have equal sums
}

func newConductor(rnd *rand.Rand, o odds, trace func(string)) *conductor {
	return &conductor{rnd: rnd, odds: o, trace: trace, arrived: make(chan struct{}, 1), sum: 14695981039346656037}
}

// step asks for something. It returns when the request may be carried out, which the
// caller then does at once, and what is to become of it.
func (c *conductor) step(ctx context.Context, by *process, kind, subject string) (fate, error) {
	if by.dead() {
		return failed, errDead(by, kind)
	}
	if err := ctx.Err(); err != nil {
		return failed, context.Cause(ctx)
	}
	r := &request{by: by, kind: kind, subject: subject, proceed: make(chan struct{})}
	r.message, _ = ctx.Value(messageKey{}).(int)
	c.mu.Lock()
	c.fresh = append(c.fresh, r)
	c.mu.Unlock()
	select {
	case c.arrived <- struct{}{}:
	default:
	}
	select {
	case <-r.proceed:
	case <-ctx.Done():
		c.drop(r)
		return failed, context.Cause(ctx)
	case <-by.life.Done():
		c.drop(r)
		return failed, errDead(by, kind)
	}
	if by.dead() {
		return failed, errDead(by, kind)
	}
	return r.fate, nil
}

// drop takes a request back.
func (c *conductor) drop(r *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.gone = true
}

// run conducts until stop is closed.
func (c *conductor) run(stop <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		synctest.Wait() // nobody else can go on
		next := c.next()
		if next != nil && !next.at.After(time.Now()) {
			c.release(next)
			continue
		}
		timer.Stop()
		if next != nil {
			timer.Reset(time.Until(next.at))
		}
		select {
		case <-stop:
			return
		case <-timer.C:
		case <-c.arrived:
		}
	}
}

// next judges what is new, in an order that doesn't depend on who came first, and
// finds the request that goes on next.
func (c *conductor) next() *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortStableFunc(c.fresh, func(a, b *request) int {
		return cmp.Or(cmp.Compare(a.by.name, b.by.name), cmp.Compare(a.kind, b.kind), cmp.Compare(a.subject, b.subject), cmp.Compare(a.message, b.message))
	})
	now := time.Now()
	var last *request
	for _, r := range c.fresh {
		switch {
		case r.gone:
			continue
		case last != nil && last.same(r): // nothing tells them apart: they share their fate
			r.at, r.fate = last.at, last.fate
		default:
			delay, f := c.odds(c.rnd, r)
			r.at, r.fate = now.Add(delay), f
		}
		last = r
		c.agenda = append(c.agenda, r)
	}
	c.fresh = c.fresh[:0]
	c.agenda = slices.DeleteFunc(c.agenda, func(r *request) bool { return r.gone })
	for _, r := range c.agenda {
		if t := r.by.thawed(); r.at.Before(t) {
			r.at = t
		}
	}
	if len(c.agenda) == 0 {
		return nil
	}
	return slices.MinFunc(c.agenda, func(a, b *request) int { return a.at.Compare(b.at) }) // the first of equal ones
}

// release lets a request go on, with those that nothing tells apart from it.
func (c *conductor) release(r *request) {
	var all []*request
	c.mu.Lock()
	c.agenda = slices.DeleteFunc(c.agenda, func(x *request) bool {
		same := x.at.Equal(r.at) && x.same(r)
		if same {
			all = append(all, x)
		}
		return same
	})
	c.mu.Unlock()
	for _, r := range all {
		c.note(fmt.Sprintf("%s, %d", r, r.fate))
		close(r.proceed)
	}
}

// note adds something to the account of the run.
func (c *conductor) note(what string) {
	line := time.Now().UTC().Format("15:04:05.000000000 ") + what
	h := fnv.New64a()
	_, _ = h.Write([]byte(line)) // it never fails
	c.mu.Lock()
	c.steps++
	c.sum = c.sum*1099511628211 ^ h.Sum64()
	c.mu.Unlock()
	if c.trace != nil {
		c.trace(line)
	}
}
