package alone

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scorer"
)

// The messages between parent and child are values of package gob: a request, then its
// answer.
const (
	opStart   = "start"
	opLoad    = "load"
	opPredict = "predict"
)

// maxPiece bounds a piece of a model in a message; gob takes messages of up to 1 GiB.
const maxPiece = 64 << 20

type request struct {
	Op          string
	MemoryBytes int64  // of start
	Data        []byte // of load: a piece of the model
	More        bool   // of load: further pieces follow
	Deadline    time.Time
	Columns     [][]float64 // of predict
	Rows        int         // of predict, as there may be no columns
}

type answer struct {
	Error      string // empty if all went well
	Kind       string // of the error
	Timeout    bool   // the error is that the time is up
	Model      loaded
	Prediction []float64
	Score      []float64
}

// childError is an error of the runtime in the child, with the same text.
type childError struct{ text string }

func (e *childError) Error() string { return e.text }

// endedError says that a child ended instead of answering.
type endedError struct {
	how  string // its exit status
	last string // what it wrote last
}

func (e *endedError) Error() string {
	return "the process ended: " + strings.TrimSuffix(e.how+": "+e.last, ": ")
}

// child is a child process.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	to     *gob.Encoder
	from   *gob.Decoder
	stderr *excerpt
	loaded bool // it has loaded the worker's model
	ended  bool
}

func newChild(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, stderr: &excerpt{}}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	cmd.Stderr = c.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that it is ended together with its own children
	cmd.WaitDelay = time.Second                           // for what they still hold open
	c.in, c.to, c.from = in, gob.NewEncoder(in), gob.NewDecoder(out)
	return c, cmd.Start()
}

// ask sends a request and waits for its answer for a limited time. After an error that
// isn't the runtime's own, the child is of no more use.
func (c *child) ask(ctx context.Context, within time.Duration, r *request) (answer, error) {
	var a answer
	done := make(chan error, 1)
	go func() { // ends with the child at the latest: kill closes its pipes
		err := c.to.Encode(r)
		if err == nil {
			err = c.from.Decode(&a)
		}
		done <- err
	}()
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case err := <-done:
		if err != nil {
			return answer{}, c.autopsy()
		}
	case <-limit.C:
		c.kill()
		<-done
		return answer{}, scorer.ErrTimeout
	case <-ctx.Done():
		c.kill()
		<-done
		return answer{}, ctx.Err()
	}
	switch {
	case a.Timeout:
		return answer{}, scorer.ErrTimeout
	case a.Error != "":
		return answer{}, fleetscoreError(a)
	}
	return a, nil
}

// fleetscoreError is the error of an answer, with its kind.
func fleetscoreError(a answer) error {
	if kind := fleetscore.ParseKind(a.Kind); kind != fleetscore.Internal {
		return &fleetscore.Error{Kind: kind, Err: &childError{a.Error}}
	}
	return &childError{a.Error}
}

// autopsy waits for the end of a child that doesn't answer any more.
func (c *child) autopsy() error {
	_ = c.in.Close() // a child that only closed its output ends by that
	end := time.AfterFunc(time.Second, c.signal)
	err := c.cmd.Wait()
	if end.Stop() {
		c.signal() // its own children
	}
	c.ended = true
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	return &endedError{how, c.stderr.line()}
}

func (c *child) kill() {
	if c.ended || c.cmd.Process == nil {
		return
	}
	c.ended = true
	c.signal()
	_ = c.in.Close()
	_ = c.cmd.Wait() // its status is the kill's
}

// signal ends the child and its own children; an error says that they have ended.
func (c *child) signal() { _ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }

// excerpt keeps the first line that says why a program ended, and else the last line
// that it wrote.
type excerpt struct {
	mu   sync.Mutex // guards what follows
	text []byte     // the line that isn't complete yet
	last string
	why  string
}

// maxLine bounds a line that is kept.
const maxLine = 300

// Write implements io.Writer.
func (e *excerpt) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(b)
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		e.text = append(e.text, line[:min(len(line), max(0, maxLine-len(e.text)))]...)
		if b = rest; !whole {
			break
		}
		if s := strings.TrimSpace(string(e.text)); s != "" {
			e.last = s
			if e.why == "" && (strings.HasPrefix(s, "fatal error: ") || strings.HasPrefix(s, "panic: ") || strings.HasPrefix(s, "runtime: out of memory") || strings.HasPrefix(s, "MemoryError")) {
				e.why = s
			}
		}
		e.text = e.text[:0]
	}
	return n, nil
}

func (e *excerpt) line() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.why != "" {
		return fleetscore.Printable(e.why)
	}
	return fleetscore.Printable(e.last)
}

// Serve is the child: it scores by a runtime what the parent sends, until in ends. If in
// ends while a model is at work, Serve returns at once, and the caller must end the
// process.
func Serve(in io.Reader, out io.Writer, runtime scorer.Runtime) error {
	w, err := runtime.Worker()
	if err != nil {
		return err
	}
	s, to := served{worker: w}, gob.NewEncoder(out)
	requests, end := make(chan *request), make(chan error, 1)
	go func() { // it ends with in
		from := gob.NewDecoder(in)
		for {
			r := &request{}
			if err := from.Decode(r); err != nil {
				end <- err
				return
			}
			requests <- r
		}
	}()
	for {
		var r *request
		select {
		case r = <-requests:
		case err := <-end:
			w.Close()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fleetscore.Wrap("read message", "", err)
		}
		done := make(chan answer, 1)
		go func() { done <- s.answer(r) }()
		select {
		case a := <-done:
			if err := to.Encode(&a); err != nil {
				return fleetscore.Wrap("write message", "", err)
			}
		case <-end:
			return fleetscore.Errorf(fleetscore.Unavailable, "score", "", "nobody waits for the model any more")
		}
	}
}

// served is the state of a child.
type served struct {
	worker scorer.Worker
	data   []byte // the pieces of the model
	more   bool   // further pieces follow
	model  scorer.Model
}

func (s *served) answer(r *request) (a answer) {
	if err := s.do(r, &a); err != nil {
		return answer{Error: err.Error(), Kind: fleetscore.KindOf(err).String(), Timeout: errors.Is(err, scorer.ErrTimeout)}
	}
	return a
}

func (s *served) do(r *request, a *answer) (err error) {
	ctx := context.Background() // the parent ends this process if it waits no longer
	switch r.Op {
	case opStart:
		return limitMemory(r.MemoryBytes)
	case opLoad:
		if !s.more {
			s.model, s.data = nil, nil
		}
		if s.data == nil {
			s.data = r.Data
		} else {
			s.data = append(s.data, r.Data...)
		}
		if s.more = r.More; s.more {
			return nil
		}
		if s.model, err = s.worker.Load(ctx, s.data); err != nil {
			return err
		}
		a.Model = loaded{s.model.Traits(), s.model.FeatureNames()}
		return nil
	case opPredict:
		if s.model == nil {
			return fmt.Errorf("no model is loaded")
		}
		a.Prediction, a.Score = make([]float64, r.Rows), make([]float64, r.Rows)
		return s.model.Predict(ctx, r.Deadline, r.Columns, a.Prediction, a.Score)
	}
	return fleetscore.Errorf(fleetscore.Invalid, "read message", r.Op, "there is no such message")
}
