package node

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
)

// pythons is the node's Python processes. Tasks that want the same of them share them, so
// that they stay warm from task to task. Pipelines share none: a model may leave something
// behind in a process that reads what is scored next. Where isolation is required, jobs
// share none either.
type pythons struct {
	interpreter string        // empty if the node runs no Python
	isolate     *sandbox.Lazy // nil if nothing is isolated

	mu    sync.Mutex // guards what follows
	pools map[settings]*shared
	ends  sync.WaitGroup // of pools that nobody needs any more
}

// settings are what a pool of processes is started with.
type settings struct {
	python   fleetscore.PythonConfig
	mounts   string // as JSON
	by       fleetscore.FeatureOrder
	pipeline string
	job      fleetscore.JobID // empty if jobs share the processes
}

// shared is a pool and the number of tasks that use it.
type shared struct {
	*python.Pool
	tasks int
}

// of gives the processes for a task, which score at most so many batches at once. Where
// there are none, it gives what tells that to each sensor. The task calls done when it has
// ended. note says how far the processes are isolated.
func (p *pythons) of(ctx context.Context, l dispatch.Lease, processes int, log *slog.Logger) (scores scorer.Foreign, done func(), note string) {
	refuse := func(err error) (scorer.Foreign, func(), string) {
		return refusing{err}, func() {}, "no Python runs: " + err.Error()
	}
	if p.interpreter == "" {
		return refuse(errors.New("this node runs no Python; start it with --python INTERPRETER (serve and up have the flag for local nodes) if the makers of the models may be trusted"))
	}
	required := l.Python.Isolation == fleetscore.IsolationRequired
	box, err := p.sandbox(ctx, required)
	if err != nil {
		return refuse(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	mounts, err := json.Marshal(l.Mounts)
	if err != nil {
		return refuse(err)
	}
	want := settings{python: l.Python, mounts: string(mounts), by: l.FeaturesBy, pipeline: l.Pipeline}
	if required {
		want.job = l.Job
	}
	p.retire(want, log)
	pool := p.pools[want]
	if pool == nil {
		cfg := python.Config{Python: p.interpreter, PerModel: l.Python.PerModel, By: l.FeaturesBy, MemoryBytes: l.Python.MemoryMB << 20, Processes: processes, Log: log, Sandbox: box, DiskBytes: l.Python.DiskMB << 20}
		for _, m := range l.Mounts {
			cfg.Env = append(cfg.Env, m.Variable()+"="+m.Path)
			if m.Writable() {
				cfg.Write = append(cfg.Write, m.Path)
			} else {
				cfg.Read = append(cfg.Read, m.Path)
			}
		}
		if c := l.Python.Code; c != "" {
			cfg.Path, cfg.Dir = []string{c}, c
			if l.Python.Script != "" {
				cfg.Script = filepath.Join(c, l.Python.Script)
			}
		}
		made, err := python.New(cfg)
		if err != nil {
			return refuse(err)
		}
		pool = &shared{Pool: made}
		if p.pools == nil {
			p.pools = map[settings]*shared{}
		}
		p.pools[want] = pool
	}
	pool.tasks++
	return pool, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		pool.tasks--
	}, "Python is " + box.Describe()
}

// sandbox is how programs are isolated on this machine; nil if they aren't.
func (p *pythons) sandbox(ctx context.Context, required bool) (*sandbox.Sandbox, error) {
	switch {
	case p.isolate != nil:
		return p.isolate.Get(ctx, required)
	case required:
		return (&sandbox.Lazy{}).Get(ctx, true)
	}
	return nil, nil
}

// retire ends the pipeline's processes that were started with other settings: with other code, or
// for other jobs. The lock is held.
func (p *pythons) retire(want settings, log *slog.Logger) {
	for s, pool := range p.pools {
		if s.pipeline == want.pipeline && s != want && pool.tasks == 0 {
			delete(p.pools, s)
			p.ends.Go(func() { end(pool, log) })
		}
	}
}

func end(pool *shared, log *slog.Logger) {
	if err := pool.Close(); err != nil {
		log.Warn("Python can't be ended", "error", err)
	}
}

// close ends all processes. No task may run.
func (p *pythons) close(log *slog.Logger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pool := range p.pools {
		p.ends.Go(func() { end(pool, log) })
	}
	p.ends.Wait()
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
