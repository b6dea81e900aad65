package pooltest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/pool"
)

// Agent is what a node does that is a goroutine. It writes what a process would
// write itself to out. It is to end soon after stop ends, and at once when life
// ends, which is how it is killed: then it must leave no trace any more.
type Agent func(life, stop context.Context, n fleetscore.Node, out io.Writer) error

// ErrKilled is how a node ended that was killed.
var ErrKilled = errors.New("killed")

// Goroutines is a provider whose nodes are goroutines of this process.
type Goroutines struct {
	agent Agent

	mu      sync.Mutex // guards what follows
	running map[fleetscore.NodeID]*goroutine
}

// NewGoroutines makes the provider of an agent.
func NewGoroutines(agent Agent) *Goroutines {
	return &Goroutines{agent: agent, running: map[fleetscore.NodeID]*goroutine{}}
}

type goroutine struct {
	life, stop context.CancelFunc
	done       chan struct{}
	ended      pool.Ended
}

// Start implements pool.Provider.
func (p *Goroutines) Start(_ context.Context, n fleetscore.Node) (pool.Running, error) {
	if p.agent == nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "start node", string(n.ID), "there is no agent")
	}
	life, kill := context.WithCancel(context.Background())
	asked, stop := context.WithCancel(life)
	g := &goroutine{life: kill, stop: stop, done: make(chan struct{})}
	p.mu.Lock()
	p.running[n.ID] = g
	p.mu.Unlock()
	go func() {
		var out bytes.Buffer
		err := p.agent(life, asked, n, &out)
		if life.Err() != nil {
			err = ErrKilled
		}
		g.ended = pool.Ended{Err: err, Output: out.Bytes()}
		p.mu.Lock()
		delete(p.running, n.ID)
		p.mu.Unlock()
		close(g.done)
		stop()
		kill()
	}()
	return g, nil
}

// StopEarlier implements pool.Provider.
func (p *Goroutines) StopEarlier(_ context.Context, n fleetscore.Node) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.running[n.ID]
	if !ok {
		return fleetscore.Errorf(fleetscore.NotFound, "stop node", string(n.ID), "no goroutine is that node")
	}
	g.stop()
	return nil
}

// Running are the nodes that run.
func (p *Goroutines) Running() (out []fleetscore.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.running {
		out = append(out, id)
	}
	return out
}

// Kill kills one of them, if it runs.
func (p *Goroutines) Kill(id fleetscore.NodeID) {
	p.mu.Lock()
	g := p.running[id]
	p.mu.Unlock()
	if g != nil {
		g.Kill()
	}
}

// Stop implements pool.Running.
func (g *goroutine) Stop() { g.stop() }

// Kill implements pool.Running.
func (g *goroutine) Kill() { g.life() }

// Wait implements pool.Running.
func (g *goroutine) Wait() pool.Ended {
	<-g.done
	return g.ended
}
