package python

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	source "github.com/fleetscore/fleetscore/python"
)

// bootstrap reads the worker's program from the request pipe, in two parts, and runs it. So
// nothing of ours has to be installed or written to a disk.
const bootstrap = `import os, struct
def read(n):
    b = b""
    while len(b) < n:
        part = os.read(3, n - len(b))
        if not part: raise SystemExit
        b += part
    return b
models_source, worker_source = [read(struct.unpack("<I", read(4))[0]) for _ in range(2)]
exec(compile(worker_source, "fleetscore/_worker.py", "exec"))`

// process is a worker process. It belongs to one goroutine, except where its methods say
// otherwise.
type process struct {
	program    *sandbox.Process
	requests   *os.File
	answers    *os.File
	in         *bufio.Reader
	at         []byte // what the worker writes: the sensor that is being scored, and whether it imports a module
	versions   map[string]string
	done       int          // sensors that it was given so far
	own        map[int]bool // its processes when it was ready; later ones belong to the sensors that it scored
	said       said
	ended      chan struct{} // closed when the process has ended
	exit       sandbox.Exit  // how, once it has
	err        error         // why it never ran
	startLimit time.Duration
	now        func() time.Time
	models     string // the folder where models are written for scripts
}

// begin starts a worker process and waits until it is ready.
func (p *Pool) begin(ctx context.Context) (w *process, err error) {
	w = &process{ended: make(chan struct{}), startLimit: p.cfg.StartLimit, now: p.cfg.Now}
	w.said.stdout, w.said.stderr = raw{to: &w.said, name: stdout}, raw{to: &w.said, name: stderr}
	requestsIn, requests, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answers, answersOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, requestsIn.Close(), requests.Close())
	}
	w.requests, w.answers, w.in = requests, answers, bufio.NewReaderSize(answers, 1<<20)
	shared, at, err := sharedMemory()
	if err == nil {
		w.at = at
		if p.cfg.Script != "" && !p.cfg.PerModel {
			w.models = filepath.Join(p.cfg.TempDir, "models-"+rand.Text()[:8]) // the worker makes it, in the folder that it sees
		}
		err = p.launch(ctx, w, requestsIn, answersOut, shared)
	}
	err = errors.Join(err, requestsIn.Close(), answersOut.Close())
	if shared != nil {
		err = errors.Join(err, shared.Close())
	}
	if err != nil {
		w.release()
		return nil, err
	}
	go func() {
		w.exit, w.err = w.program.Wait()
		close(w.ended)
	}()
	if err := w.hello(ctx, p.cfg); err != nil {
		w.kill()
		return nil, err
	}
	return w, nil
}

// launch starts the interpreter, isolated as far as the machine can.
func (p *Pool) launch(ctx context.Context, w *process, files ...*os.File) error {
	home, err := p.interpreter(ctx)
	if err != nil {
		return err
	}
	w.program, err = p.cfg.Sandbox.Prepare(sandbox.Spec{
		Path: home.Executable, Args: []string{home.Executable, "-u", "-c", bootstrap}, Env: p.environment(w.models), WorkDir: p.cfg.Dir, Files: files,
		Stdout: &w.said.stdout, Stderr: &w.said.stderr, Dir: p.cfg.TempDir, Read: slices.Concat(home.Folders, p.cfg.Path, p.cfg.Read, p.ownFolders()), Write: p.cfg.Write, DiskBytes: p.cfg.DiskBytes,
	})
	if err != nil {
		return err
	}
	err = p.starter.start(w.program.Cmd)
	w.program.Started(err)
	return err
}

// hello sends the program and the settings, and waits for the answer.
func (w *process) hello(ctx context.Context, cfg Config) error {
	var program []byte
	for _, text := range []string{source.Models, source.Worker} {
		program = append(binary.LittleEndian.AppendUint32(program, uint32(len(text))), text...)
	}
	stop := context.AfterFunc(ctx, w.signal)
	defer stop()
	limit := time.AfterFunc(cfg.StartLimit, w.signal)
	defer limit.Stop()
	sent := make(chan error, 1)
	go func() {
		_, err := w.requests.Write(program)
		if err == nil {
			err = writeFrame(w.requests, startRequest{Op: "start", Script: cfg.Script, PerModel: cfg.PerModel, FeaturesBy: string(cfg.By), Path: append([]string{}, cfg.Path...), Memory: cfg.MemoryBytes})
		}
		sent <- err
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
	w.versions, w.own = h.Versions, w.program.Descendants()
	return nil
}

// traced is an error with what was printed before it, and a Python traceback, for the log.
type traced struct {
	error
	trace string
}

// Unwrap gives the error without the traceback.
func (t *traced) Unwrap() error { return t.error }

// signal kills the process and the processes of its group. It may be called by any
// goroutine.
func (w *process) signal() {
	w.program.Kill()
}

// kill ends the process and waits for its end.
func (w *process) kill() {
	w.signal()
	<-w.ended
	w.release()
}

// left reports whether what was scored left processes behind.
func (w *process) left() bool {
	for pid := range w.program.Descendants() {
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
	if w.at != nil {
		_ = unix.Munmap(w.at)
		w.at = nil
	}
	if w.models != "" {
		_ = os.RemoveAll(w.models)
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

// environment is what a worker process sees of the environment.
func (p *Pool) environment(models string) []string {
	env := Environment(p.cfg.TempDir)
	if models != "" {
		env = append(env, "AZUREML_MODEL_DIR="+models)
	}
	return append(env, p.cfg.Env...)
}

// Environment is what Python and its libraries need of the environment, and no secret of this
// process. temp is the folder where processes may write.
func Environment(temp string) []string {
	env := []string{"OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1", "NUMEXPR_NUM_THREADS=1",
		"PYTHONDONTWRITEBYTECODE=1", "PYTHONIOENCODING=utf-8", "PYTHONUNBUFFERED=1", "HOME=" + temp, "TMPDIR=" + temp}
	for _, name := range []string{"PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT", "PYENV_ROOT"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
