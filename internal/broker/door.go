package broker

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"github.com/fleetscore/fleetscore"
)

// doors are where nodes wait for tasks of their pool. When tasks come, only as many nodes
// are called as there are tasks, those that have waited longest first: thousands that look
// at the queue at the same time would find it empty. Which of them gets a task is decided by
// the ledger alone, so it does no harm if another server calls its nodes too.
type doors struct {
	mu      sync.Mutex            // guards waiting
	waiting map[string]*list.List // by pool, of *waiter in the order they came
}

// waiter is a node that waits.
type waiter struct {
	free   int           // how many tasks it can take
	called chan struct{} // gets a signal when it should look at the queue
}

// enter lets a node wait until leave is called.
func (d *doors) enter(pool string, free int) (called <-chan struct{}, leave func()) {
	if free < 1 {
		return nil, func() {}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting[pool] == nil {
		d.waiting[pool] = list.New()
	}
	w := &waiter{free, make(chan struct{}, 1)}
	place := d.waiting[pool].PushBack(w)
	return w.called, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.waiting[pool].Remove(place); d.waiting[pool].Len() == 0 {
			delete(d.waiting, pool)
		}
	}
}

// free is how many tasks the waiting nodes can take, by pool.
func (d *doors) free() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]int{}
	for pool, l := range d.waiting {
		for e := l.Front(); e != nil; e = e.Next() {
			out[pool] += e.Value.(*waiter).free
		}
	}
	return out
}

// call calls nodes that can take so many tasks together.
func (d *doors) call(pool string, tasks int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.waiting[pool]
	if l == nil {
		return
	}
	for n := l.Len(); n > 0 && tasks > 0; n-- {
		w := l.Front().Value.(*waiter)
		l.MoveToBack(l.Front()) // if it can't take a task after all, the next step calls others
		select {
		case w.called <- struct{}{}:
		default: // it was called before and hasn't looked yet
		}
		tasks -= w.free
	}
}

// open calls the nodes that wait for as many tasks as there are. A node that was called and
// is gone before it looked leaves its task to the next step.
func (b *Broker) open(ctx context.Context) (next, error) {
	now := b.now()
	n := next{Wake: now.Add(tendEvery)}
	var problems []error
	for pool, free := range b.doors.free() {
		due, err := b.ledger.TasksDue(ctx, pool, free, now)
		problems = append(problems, err)
		b.doors.call(pool, due)
		retry, err := b.ledger.NextRetry(ctx, pool, now)
		problems = append(problems, err)
		if !retry.IsZero() && retry.Before(n.Wake) {
			n.Wake = retry
		}
	}
	return n, errors.Join(problems...)
}

// await is the state of a node that asks for tasks; kind NotFound if it has to register again.
func (b *Broker) await(ctx context.Context, id fleetscore.NodeID) (fleetscore.Node, error) {
	n, err := b.ledger.Node(ctx, id)
	if err == nil && !n.State.Works() && n.State != fleetscore.NodeDraining {
		err = fleetscore.Errorf(fleetscore.NotFound, "lease tasks", string(id), "the node is %s: it has to register again", n.State)
	}
	return n, err
}
