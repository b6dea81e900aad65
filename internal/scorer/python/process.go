package python

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/sandbox"
)

// process is a worker process. It belongs to one goroutine, except where its methods say
// otherwise.
type process struct {
	pool       *Pool
	parent     *parent
	forked     bool // the parent is another process, which goes on
	requests   *os.File
	answers    *os.File
	prints     []*os.File // what it prints, to be read
	in         *bufio.Reader
	at         []byte // what the worker writes: the sensor that is being scored, and whether it imports a module; and what it reads: whether it shall score no further sensor
	versions   map[string]string
	done       int          // sensors that it was given so far
	own        map[int]bool // its processes when it was ready; later ones belong to the sensors that it scored
	said       said
	ended      chan struct{} // closed when the process has ended
	exit       sandbox.Exit  // how, once it has
	err        error         // why it never ran
	startLimit time.Duration
	now        func() time.Time

	mu    sync.Mutex // guards what follows
	apart bool       // its processes can be told from its parent's, as where the kernel names a process's children
	over  bool       // it has ended, and its parent may have made another one
}

// begin starts a worker process and waits until it is ready.
func (p *Pool) begin(ctx context.Context) (*process, error) {
	if par := p.takeParent(); par != nil {
		if w, err := p.worker(ctx, par); err == nil || ctx.Err() != nil {
			return w, err
		}
	}
	for {
		par, err := p.newParent(ctx)
		if err != nil {
			return nil, err
		}
		w, err := p.worker(ctx, par)
		if err == nil || ctx.Err() != nil || !p.forget() { // it may be the modules' fault
			return w, err
		}
	}
}

// worker has a parent make a worker. If that fails, the parent is ended.
func (p *Pool) worker(ctx context.Context, par *parent) (w *process, err error) {
	w = &process{pool: p, parent: par, ended: make(chan struct{}), startLimit: p.cfg.StartLimit, now: p.cfg.Now}
	w.said.stdout, w.said.stderr = raw{to: &w.said, name: stdout}, raw{to: &w.said, name: stderr}
	theirs, err := w.open()
	var answer message
	if err == nil {
		stop := par.bound(ctx, p.cfg.StartLimit)
		if answer, err = par.fork(p.order(par), theirs...); err != nil {
			par.end()
			err = p.unready(ctx, par)
		}
		stop()
		p.shun(answer.Threaded, answer.Forks)
	}
	closeAll(theirs)
	if err == nil && !answer.Clean {
		err = errors.New("its last worker has left something behind")
	}
	if err != nil {
		w.release()
		par.end()
		return nil, err
	}
	w.forked = answer.Forks
	w.said.early = par.said.taken()
	go w.attend()
	if err := w.hello(ctx, p.cfg); err != nil {
		w.kill()
		return nil, err
	}
	return w, nil
}

// open makes the ways to and from the worker, and gives the worker's ends. They are to be closed, also after an error.
func (w *process) open() (theirs []*os.File, err error) {
	pipe := func(theyRead bool) (ours *os.File) {
		r, wr, e := os.Pipe()
		err = errors.Join(err, e)
		if theyRead {
			r, wr = wr, r
		}
		theirs = append(theirs, wr)
		return r
	}
	w.requests, w.answers = pipe(true), pipe(false)
	shared, at, e := sharedMemory()
	w.at, theirs = at, append(theirs, shared)
	w.prints = []*os.File{pipe(false), pipe(false)}
	w.in = bufio.NewReaderSize(w.answers, 1<<20)
	return theirs, errors.Join(err, e)
}

// order is what a parent is to do for its next worker.
func (p *Pool) order(par *parent) order {
	o := order{First: []string{"numpy", "pyarrow", "sklearn"}, Path: append([]string{}, p.cfg.Path...), Import: append([]string{}, p.learned()...), Folder: par.folder, Models: par.models}
	if p.cfg.Script != "" {
		o.First = append(o.First, "pandas")
	}
	return o
}

// attend reads what the process prints, and waits for its end.
func (w *process) attend() {
	var reading sync.WaitGroup
	for i, to := range []io.Writer{&w.said.stdout, &w.said.stderr} {
		reading.Go(func() { _, _ = io.Copy(to, w.prints[i]) })
	}
	w.exit, w.err = w.parent.wait(w.forked)
	// What it left behind may hold the pipes open.
	late := time.AfterFunc(time.Second, func() { closeAll(w.prints) })
	reading.Wait()
	late.Stop()
	close(w.ended)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // nil if it was never opened
	}
}

// hello sends the settings, and waits for the answer.
func (w *process) hello(ctx context.Context, cfg Config) error {
	stop := context.AfterFunc(ctx, w.signal)
	defer stop()
	limit := time.AfterFunc(cfg.StartLimit, w.signal)
	defer limit.Stop()
	sent := make(chan error, 1)
	go func() {
		sent <- writeFrame(w.requests, startRequest{Op: "start", Script: cfg.Script, PerModel: cfg.PerModel, FeaturesBy: string(cfg.By), Path: append([]string{}, cfg.Path...), Memory: cfg.MemoryBytes, Models: w.parent.models})
	}()
	h, _, err := readFrame(w.in, 0)
	for ; err == nil && h.Printed != nil; h, _, err = readFrame(w.in, 0) {
		w.said.add(*h.Printed)
	}
	if err != nil {
		w.kill()
	}
	<-sent // the answer tells more than this error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case h.Error != nil:
		err := fleetscore.Errorf(fleetscore.Invalid, "start Python", cfg.Python, "%s", h.Error.Error())
		if uid, other := cfg.Sandbox.OtherUser(); other && h.Error.Type == "PermissionError" {
			err = err.WithHint("root starts isolated Python as the user %d, who must be able to read the file: chmod -R a+rX the folder, or start the node as an ordinary user", uid)
		}
		if h.Error.Trace != "" {
			return &traced{err, w.said.before() + h.Error.Trace}
		}
		return err
	case err != nil && !limit.Stop():
		return fleetscore.Errorf(fleetscore.Invalid, "start Python", cfg.Python, "it wasn't ready after %s", cfg.StartLimit).WithHint("look for what takes so long while the script is loaded and init() runs")
	case err != nil:
		return fleetscore.Errorf(fleetscore.Invalid, "start Python", cfg.Python, "the process ended before it was ready: %s", w.cause())
	}
	w.versions, w.own = h.Versions, w.parent.program.Descendants()
	w.pool.learn(h.Imported)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.apart = w.forked && len(w.own) > len(w.parent.own)
	return nil
}

// traced is an error with what was printed before it, and a Python traceback, for the log.
type traced struct {
	error
	trace string
}

// Unwrap gives the error without the traceback.
func (t *traced) Unwrap() error { return t.error }

// signal kills the process and all that it started. It may be called by any goroutine.
func (w *process) signal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over && !(w.apart && w.parent.program.EndOthers(w.parent.own)) {
		w.parent.program.Kill()
	}
}

// kill ends the process and waits for its end.
func (w *process) kill() {
	w.signal()
	w.finish()
	w.release()
	if w.goesOn() {
		w.pool.giveParent(w.parent)
	} else {
		w.parent.end()
	}
}

// finish waits for the end of a process that is ending. A parent that doesn't tell it, as one that a model has
// stopped, is ended too.
func (w *process) finish() {
	late := time.AfterFunc(endLimit, w.parent.program.Kill)
	defer late.Stop()
	<-w.ended
}

// endLimit is how long a parent may take to tell that its worker has ended.
const endLimit = 5 * time.Second

// goesOn tells whether the parent can make another worker.
func (w *process) goesOn() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	select {
	case <-w.parent.ended:
		return false
	default:
		return w.apart && w.parent.program.EndOthers(w.parent.own)
	}
}

// left reports whether what was scored left processes behind.
func (w *process) left() bool {
	for pid := range w.parent.program.Descendants() {
		if !w.own[pid] {
			return true
		}
	}
	return false
}

// close lets the process end by itself, which runs the script's shutdown(), and kills it
// after a limit.
func (w *process) close(limit time.Duration) {
	_ = w.requests.Close()
	select {
	case <-w.ended:
	case <-time.After(limit):
	}
	w.kill() // also what it left behind
}

func (w *process) release() {
	_, _ = w.requests.Close(), w.answers.Close()
	closeAll(w.prints)
	if w.at != nil {
		_ = unix.Munmap(w.at)
		w.at = nil
	}
}

// cause says why the process ended, once it has.
func (w *process) cause() string {
	<-w.ended
	text := "its process ended"
	switch {
	case w.err != nil:
		return w.err.Error()
	case w.exit.Signal != 0:
		text = fmt.Sprintf("its process was ended by signal %d (%s)", w.exit.Signal, w.exit.Signal)
		if w.exit.Signal == syscall.SIGKILL {
			text += ", as a machine without memory does"
		}
	case w.exit.Code != 0:
		text = fmt.Sprintf("its process ended with exit code %d", w.exit.Code)
	}
	if line := w.said.last(); line != "" {
		text += "; its last words: " + line
	}
	return text
}

// position is the number of the sensor that the worker scores: -1 for none, -2 for
// all of a script's batch.
func (w *process) position() int64 {
	return int64(atomic.LoadUint64((*uint64)(pointer(w.at))))
}

// importing tells whether a module is imported for the first time.
func (w *process) importing() bool {
	return atomic.LoadUint64((*uint64)(pointer(w.at[8:]))) != 0
}

// setPosition is called while the worker does nothing.
func (w *process) setPosition(n int64) {
	atomic.StoreUint64((*uint64)(pointer(w.at)), uint64(n))
}

// goOn tells the worker whether to score the other sensors of its request after the one that it is scoring.
func (w *process) goOn(on bool) {
	var stop uint64
	if !on {
		stop = 1
	}
	atomic.StoreUint64((*uint64)(pointer(w.at[16:])), stop)
}

// environment is what a worker process sees of the environment.
func (p *Pool) environment() []string {
	return append(Environment(p.cfg.TempDir), p.cfg.Env...)
}

// Environment is what Python and its libraries need of the environment, and no secret of this
// process. temp is the folder where processes may write.
func Environment(temp string) []string {
	env := []string{"JE_ARROW_MALLOC_CONF=background_thread:false", "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1", "NUMEXPR_NUM_THREADS=1",
		"PYTHONDONTWRITEBYTECODE=1", "PYTHONIOENCODING=utf-8", "PYTHONUNBUFFERED=1", "HOME=" + temp, "TMPDIR=" + temp}
	for _, name := range []string{"PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT", "PYENV_ROOT"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
