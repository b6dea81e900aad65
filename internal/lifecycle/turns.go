package lifecycle

import (
	"context"
	"sync"
)

// Turns lets one caller at a time work on each thing, such as the log of a lease. It is
// for work that takes long, such as reading a disk or a store: unlike with a mutex,
// whoever waits stops waiting when its context ends, and work on other things goes on.
// The zero value works. It is safe for concurrent use.
type Turns[K comparable] struct {
	mu    sync.Mutex          // guards taken; never held while a caller works
	taken map[K]chan struct{} // each channel is closed at the end of the turn
}

// Take waits for the turn at a thing, or until ctx ends. The caller ends its turn with
// done.
func (t *Turns[K]) Take(ctx context.Context, thing K) (done func(), err error) {
	mine := make(chan struct{})
	for {
		t.mu.Lock()
		other, taken := t.taken[thing]
		if !taken {
			if t.taken == nil {
				t.taken = map[K]chan struct{}{}
			}
			t.taken[thing] = mine
		}
		t.mu.Unlock()
		if !taken {
			return func() {
				t.mu.Lock()
				delete(t.taken, thing)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
