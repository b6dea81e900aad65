package node

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
)

// pythons is the node's Python processes. Tasks that want the same of them share them, so
// that they stay warm from task to task.
type pythons struct {
	interpreter string // empty if the node runs no Python

	mu    sync.Mutex // guards what follows
	pools map[settings]*python.Pool
}

// settings are what a pool of processes is started with.
type settings struct {
	python fleetscore.PythonConfig
	by     fleetscore.FeatureOrder
}

// of gives the processes for a task, which score at most so many batches at once. Where
// there are none, it gives what tells that to each sensor.
func (p *pythons) of(l dispatch.Lease, processes int, log *slog.Logger) scorer.Foreign {
	if p.interpreter == "" {
		return refusing{errors.New("this node runs no Python; start it with --python INTERPRETER (serve and up have the flag for local nodes) if the makers of the models may be trusted")}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	want := settings{l.Python, l.FeaturesBy}
	if pool, ok := p.pools[want]; ok {
		return pool
	}
	cfg := python.Config{Python: p.interpreter, PerModel: l.Python.PerModel, By: l.FeaturesBy, MemoryBytes: l.Python.MemoryMB << 20, Processes: processes, Log: log}
	if c := l.Python.Code; c != "" {
		cfg.Path, cfg.Dir = []string{c}, c
		if l.Python.Script != "" {
			cfg.Script = filepath.Join(c, l.Python.Script)
		}
	}
	pool, err := python.New(cfg)
	if err != nil {
		return refusing{err}
	}
	if p.pools == nil {
		p.pools = map[settings]*python.Pool{}
	}
	p.pools[want] = pool
	return pool
}

// close ends all processes. No task may run.
func (p *pythons) close(log *slog.Logger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pool := range p.pools {
		if err := pool.Close(); err != nil {
			log.Warn("Python can't be ended", "error", err)
		}
	}
	p.pools = nil
}

// refusing ends every sensor with the same error.
type refusing struct{ err error }

// Score implements scorer.Foreign.
func (r refusing) Score(_ context.Context, b *scorer.Batch, ended func(int, scorer.Ended)) error {
	for i := range b.Sensors {
		ended(i, scorer.Ended{Err: r.err})
	}
	return nil
}
