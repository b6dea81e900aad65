// Package python is the runtime that scores with models in Python: in worker processes
// that stay alive from batch to batch, which load any model that Python can load, or run a
// user's script.
//
// A model that raises, crashes, hangs or takes too much memory costs its own sensor alone:
// what the other sensors of its batch lost by the end of a process is repeated in a fresh
// one, and a sensor that a process ended at is scored alone before it is blamed.
//
// Processes are isolated by a sandbox.Sandbox; without one, only processes and limits of the
// operating system part them from others. The package neither finds models nor stores results. A Pool is safe for concurrent use.
package python

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/sandbox"
)

// Config says how worker processes are started.
type Config struct {
	Python      string                  // the interpreter; empty means python3 of PATH
	Script      string                  // a file with run(); empty means that models are loaded and asked to predict
	PerModel    bool                    // the script's run gets a model and its rows, not the rows of many sensors
	By          fleetscore.FeatureOrder // how columns are matched with features
	Path        []string                // folders that modules are imported from
	Dir         string                  // the working folder; empty means TempDir
	TempDir     string                  // where processes may write; empty means a folder of its own in Base, which Close removes
	Base        string                  // empty means the system's folder for temporary files
	Env         []string                // further variables, NAME=value
	Read        []string                // further folders that processes see, read-only
	Write       []string                // further folders that they may write to
	MemoryBytes int64                   // that a process may allocate beyond what its libraries take; 0 means 2 GiB
	Sandbox     *sandbox.Sandbox        // isolates processes; nil means that they aren't isolated
	DiskBytes   int64                   // that an isolated process may write; 0 means 512 MiB
	Versions    fleetscore.VersionRule  // what becomes of models that were made with other releases; empty means warn
	Recycle     int                     // sensors after which a process is replaced; 0 means 20,000
	Processes   int                     // at most at once; 0 means 1
	StartLimit  time.Duration           // how long a process may take until it is ready; 0 means 2 min
	Log         *slog.Logger            // nil discards
	Now         func() time.Time        // the time that limits are measured by; nil means time.Now
}

// Pool is worker processes of one kind, started when they are needed.
type Pool struct {
	cfg     Config
	starter *starter
	turns   chan struct{} // a place for each process that may run
	own     bool          // TempDir is the pool's
	size    atomic.Int64  // sensors that a script is given with one call
	started atomic.Int64  // parents that were started

	mu       sync.Mutex // guards what follows
	idle     []*process
	parents  []*parent       // without workers
	modules  []string        // of libraries, that workers have imported
	knows    map[string]bool // those that are in modules, or were
	shunned  map[string]bool // packages that start threads when they are imported
	versions map[string]string
	home     *Home // nil until it is known
	failed   error // why no process can be started
	failedAt time.Time
}

// New builds a pool. No process is started. Kind NotFound if there is no such Python.
func New(cfg Config) (*Pool, error) {
	cfg.Python = cmp.Or(cfg.Python, "python3")
	var err error
	if cfg.Python, err = find(cfg.Python); err != nil {
		return nil, err
	}
	cfg.MemoryBytes = cmp.Or(cfg.MemoryBytes, 2<<30)
	cfg.Recycle = cmp.Or(cfg.Recycle, 20_000)
	cfg.Processes = max(1, cfg.Processes)
	cfg.StartLimit = cmp.Or(cfg.StartLimit, 2*time.Minute)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	p := &Pool{cfg: cfg, turns: make(chan struct{}, cfg.Processes), knows: map[string]bool{}, shunned: map[string]bool{}}
	p.size.Store(1 << 30)
	if cfg.TempDir == "" {
		if p.cfg.TempDir, err = os.MkdirTemp(cfg.Base, "fleetscore-python-"); err != nil {
			return nil, fleetscore.Wrap("start Python", cfg.Python, err)
		}
		p.own = true
	}
	p.cfg.Dir = cmp.Or(cfg.Dir, p.cfg.TempDir)
	p.starter = newStarter()
	return p, nil
}

// Close ends all processes. No Score may run.
func (p *Pool) Close() error {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	var running sync.WaitGroup
	for _, w := range idle {
		running.Go(func() { w.close(5 * time.Second) })
	}
	running.Wait()
	for par := p.takeParent(); par != nil; par = p.takeParent() {
		par.end()
	}
	p.starter.close()
	if p.own {
		return os.RemoveAll(p.cfg.TempDir)
	}
	return nil
}

// Versions are the versions of Python and of the libraries in it, once a process was started.
func (p *Pool) Versions() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.versions
}

// take gives an idle process or starts one; a fresh one is always started. turn says that the
// caller has taken one of the turns already.
func (p *Pool) take(ctx context.Context, fresh, turn bool) (*process, error) {
	if !turn {
		select {
		case p.turns <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	p.mu.Lock()
	var w *process
	if n := len(p.idle); n > 0 && !(fresh && len(p.parents) > 0) {
		w = p.idle[n-1]
		p.idle = p.idle[:n-1]
	}
	failed, at := p.failed, p.failedAt
	p.mu.Unlock()
	if w != nil && !fresh {
		return w, nil
	}
	if w != nil {
		w.close(5 * time.Second)
	}
	if failed != nil && p.cfg.Now().Sub(at) < failedFor {
		<-p.turns
		return nil, failed
	}
	began := p.cfg.Now()
	w, err := p.begin(ctx)
	if err != nil {
		<-p.turns
		if ctx.Err() == nil {
			p.mu.Lock()
			p.failed, p.failedAt = err, p.cfg.Now()
			p.mu.Unlock()
			p.cfg.Log.Warn("Python can't be started", "python", p.cfg.Python, "error", err)
		}
		return nil, err
	}
	p.mu.Lock()
	p.versions, p.failed = w.versions, nil
	p.mu.Unlock()
	p.cfg.Log.Info("Python is ready", "python", p.cfg.Python, "pid", w.parent.program.Cmd.Process.Pid, "version", w.versions["python"], "sklearn", w.versions["sklearn"], "took", p.cfg.Now().Sub(began).Round(time.Millisecond))
	return w, nil
}

// failedFor is how long a process that couldn't be started isn't tried again: the sensors
// of one job needn't wait for it one after another.
const failedFor = 10 * time.Second

// give takes a process back.
func (p *Pool) give(w *process) {
	defer func() { <-p.turns }()
	left := w.left()
	if left {
		p.cfg.Log.Warn("a script or model left processes behind, which are ended with its Python process", "pid", w.parent.program.Cmd.Process.Pid)
	}
	if left || w.done >= p.cfg.Recycle {
		w.close(5 * time.Second)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, w)
}

// drop ends a process that can't be used on.
func (p *Pool) drop(w *process) {
	w.kill()
	<-p.turns
}
