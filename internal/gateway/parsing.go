package gateway

import (
	"container/list"
	"sync"
	"time"
)

// parsing holds the requests whose bodies have arrived and whose readings aren't
// queued yet. A tick must not declare silence after the time of the oldest of these
// requests, because that request may hold readings for any partition. A tick needn't
// wait for the requests: a busy server always has some.
type parsing struct {
	mu    sync.Mutex // guards what follows
	begun list.List  // times of begin, in order
}

// begin notes a request whose body has arrived; end removes the request.
func (p *parsing) begin(now func() time.Time) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.begun.PushBack(now())
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.begun.Remove(e)
	}
}

// oldest is when the oldest of the requests began; now if there is none.
func (p *parsing) oldest(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.begun.Front(); e != nil {
		if t := e.Value.(time.Time); t.Before(now) {
			return t
		}
	}
	return now
}

func (p *parsing) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begun.Len()
}
