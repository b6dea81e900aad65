package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
	"github.com/fleetscore/fleetscore/sklearn"
)

// pythons is the node's Python processes. Tasks that want the same of them share them, so
// that they stay warm from task to task. Pipelines share none: a model may leave something
// behind in a process that reads what is scored next. Where isolation is required, jobs
// share none either.
type pythons struct {
	interpreter  string        // empty if the node runs no Python
	base         string        // the folder in which those of processes are made; empty means the system's for temporary files
	environments string        // the folder of further environments; empty if there is none
	isolate      *sandbox.Lazy // nil if nothing is isolated
	now          func() time.Time

	mu    sync.Mutex // guards what follows
	pools map[settings]*shared
	ends  sync.WaitGroup // of pools that nobody needs any more
}

// settings are what a pool of processes is started with.
type settings struct {
	interpreter string
	python      string // as JSON
	mounts      string // as JSON
	by          fleetscore.FeatureOrder
	pipeline    string
	job         fleetscore.JobID // empty if jobs share the processes
}

// shared is a pool and the number of tasks that use it.
type shared struct {
	*python.Pool
	tasks int
	code  string // the folder
}

// of gives the processes for a task, which score at most so many batches at once. Where
// there are none, it gives what tells that to each sensor. The task calls done when it has
// ended. note says how far the processes are isolated.
func (p *pythons) of(ctx context.Context, l dispatch.Lease, processes int, out *taskLog, log *slog.Logger) (scores scorer.Foreign, done func(), note string) {
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
	mounts, err := json.Marshal(l.Mounts)
	if err != nil {
		return refuse(err)
	}
	doc, err := json.Marshal(l.Python)
	if err != nil {
		return refuse(err)
	}
	u := &user{pythons: p, lease: l, processes: processes, sandbox: box, log: log, out: out, want: settings{python: string(doc), mounts: string(mounts), by: l.FeaturesBy, pipeline: l.Pipeline}}
	if required {
		u.want.job = l.Job
	}
	if len(l.Python.Environments) == 0 || l.Environment > 0 {
		interpreter := p.interpreter
		if l.Environment > 0 && l.Environment <= len(l.Python.Environments) { // this node's image is the environment
			interpreter = cmp.Or(l.Python.Environments[l.Environment-1].Python, interpreter)
		}
		if scores, err = u.pool(interpreter); err != nil {
			return refuse(err)
		}
		return scores, u.done, "Python is " + box.Describe()
	}
	return python.Places{Of: func(made sklearn.Origin) int { return dispatch.EnvironmentOf(made.SKLearn, l.Python.Environments) }, At: u.at}, u.done, "Python is " + box.Describe()
}

// user is a task that uses Python.
type user struct {
	*pythons
	lease     dispatch.Lease
	processes int
	sandbox   *sandbox.Sandbox
	out       *taskLog
	log       *slog.Logger
	want      settings // without the interpreter

	taken []*shared // guarded by the pythons' lock
}

// pool gives the processes of an interpreter.
func (u *user) pool(interpreter string) (scorer.Foreign, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	l, want := u.lease, u.want
	want.interpreter = interpreter
	u.retire(want, u.log)
	pool := u.pools[want]
	if pool == nil {
		cfg := python.Config{Python: interpreter, Base: u.base, PerModel: l.Python.PerModel, By: l.FeaturesBy, MemoryBytes: l.Python.MemoryMB << 20, Processes: u.processes, Log: u.log, Sandbox: u.sandbox, DiskBytes: l.Python.DiskMB << 20, Versions: l.Python.Versions}
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
			return nil, err
		}
		pool = &shared{Pool: made, code: l.Python.Code}
		if u.pools == nil {
			u.pools = map[settings]*shared{}
		}
		u.pools[want] = pool
	}
	if !slices.Contains(u.taken, pool) {
		pool.tasks++
		u.taken = append(u.taken, pool)
	}
	return pool, nil
}

// done gives all processes back.
func (u *user) done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, pool := range u.taken {
		pool.tasks--
	}
	u.taken = nil
}

// at gives the processes of an environment of the pipeline, which is made if need be; -1 is the
// node's own interpreter.
func (u *user) at(ctx context.Context, place int) (scorer.Foreign, error) {
	if place < 0 || u.lease.Python.Environments[place].Image != "" { // tasks of an image have its models, unless their job was moved to another pool
		return u.pool(u.interpreter)
	}
	e := u.lease.Python.Environments[place]
	if u.environments == "" {
		return nil, fmt.Errorf("the environment for models of scikit-learn %s can't be used, because this node has no folder of environments; start it with --environments FOLDER (serve and up have the flag for local nodes)", e.SKLearn)
	}
	if e.Path != "" {
		return u.pool(filepath.Join(u.environments, e.Path, "bin", "python"))
	}
	text, err := os.ReadFile(e.Requirements)
	if err != nil {
		return nil, fmt.Errorf("the environment for models of scikit-learn %s can't be made: %w", e.SKLearn, err)
	}
	base := u.interpreter
	if e.Python != "" {
		if base, err = exec.LookPath(e.Python); err != nil {
			return nil, fmt.Errorf("the environment for models of scikit-learn %s can't be made: %w", e.SKLearn, err)
		}
	}
	began := u.now()
	interpreter, err := python.Recipe{Base: base, Requirements: text, Index: e.Index}.Environment(ctx, u.environments)
	if err != nil {
		u.out.printf("no environment for models of scikit-learn %s: %v", e.SKLearn, err)
		return nil, err
	}
	if took := u.now().Sub(began); took > time.Second {
		u.out.printf("the environment for models of scikit-learn %s was made in %s", e.SKLearn, took.Round(time.Second))
	}
	return u.pool(interpreter)
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
		other := want
		other.interpreter = s.interpreter
		if s.pipeline == want.pipeline && s != other && pool.tasks == 0 {
			delete(p.pools, s)
			p.ends.Go(func() { end(pool, log) })
		}
	}
}

// leave ends the processes that have a folder of code, which no task uses, and waits for that. Others don't wait.
func (p *pythons) leave(folder string, log *slog.Logger) {
	var ended sync.WaitGroup
	p.mu.Lock()
	for s, pool := range p.pools {
		if pool.tasks == 0 && (pool.code == folder || strings.HasPrefix(pool.code, folder+string(filepath.Separator))) {
			delete(p.pools, s)
			ended.Add(1)
			p.ends.Go(func() {
				defer ended.Done()
				end(pool, log)
			})
		}
	}
	p.mu.Unlock()
	ended.Wait()
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
