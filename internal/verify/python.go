package verify

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/obs"
)

//go:embed worker.py
var script string

// Python is the interpreter that models are compared with.
type Python struct {
	Executable string `json:"executable"`
	Version    string `json:"version"`
	Sklearn    string `json:"scikit_learn"`
	NumPy      string `json:"numpy"`
	Isolated   bool   `json:"isolated"` // it ran with -I: without the user's own packages and variables
}

// fault is an exception of the worker.
type fault struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Module  string `json:"module"` // the missing module, for a ModuleNotFoundError
}

func (f *fault) String() string {
	if f.Message == "" {
		return f.Type
	}
	return f.Type + ": " + f.Message
}

// request asks the worker to load a file and score rows.
type request struct {
	ID      int      `json:"id"`
	Path    string   `json:"path"`
	Methods []string `json:"methods"`
	Cols    int      `json:"cols"`
	Names   []string `json:"names,omitempty"` // of the features, where the model was fitted with names
	X       string   `json:"x"`
}

// reply is the worker's answer.
type reply struct {
	ID       int              `json:"id"`
	Load     *fault           `json:"load"` // why the file can't be loaded
	Out      map[string]array `json:"out"`
	Errors   map[string]fault `json:"errors"`
	Warnings []string         `json:"warnings"`
}

type array struct {
	Cols   int    `json:"cols"`
	Values string `json:"values"`
}

// worker is a running Python. It belongs to one goroutine.
type worker struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	notes *obs.Tail
	about Python
	ended bool
}

// maxAnswer bounds a line of the worker.
const maxAnswer = 1 << 30

// startWorker starts the interpreter: isolated from the user's variables and own
// packages if scikit-learn is found that way, otherwise as the user would start it.
func startWorker(ctx context.Context, python string, patience time.Duration) (*worker, error) {
	w, first := launch(ctx, python, true, patience)
	if first == nil {
		return w, nil
	}
	w, err := launch(ctx, python, false, patience)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func launch(ctx context.Context, python string, isolated bool, patience time.Duration) (*worker, error) {
	bad := func(kind fleetscore.Kind, format string, args ...any) (*worker, error) {
		return nil, fleetscore.Errorf(kind, "start Python", python, format, args...).
			WithHint("give --python an interpreter that has scikit-learn, for example venv/bin/python")
	}
	args := []string{"-u", "-c", script}
	if isolated {
		args = append([]string{"-I"}, args...)
	}
	w := &worker{cmd: exec.Command(python, args...), notes: &obs.Tail{}, about: Python{Isolated: isolated}}
	w.cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1")
	w.cmd.Stderr = w.notes
	w.cmd.WaitDelay = 5 * time.Second
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return bad(fleetscore.Internal, "%w", err)
	}
	stdout, err := w.cmd.StdoutPipe()
	if err != nil {
		return bad(fleetscore.Internal, "%w", err)
	}
	w.out = bufio.NewReaderSize(stdout, 1<<16)
	if err := w.cmd.Start(); err != nil {
		return bad(fleetscore.Unavailable, "%w", cause(err))
	}
	var hello struct {
		Python, Executable, Sklearn, NumPy string
		Error                              *fault
	}
	err = w.read(ctx, patience, &hello)
	if err == nil && hello.Error != nil {
		err = errors.New(hello.Error.String())
	}
	if err != nil {
		w.stop()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return bad(fleetscore.Unavailable, "%w", err)
	}
	w.about = Python{hello.Executable, hello.Python, hello.Sklearn, hello.NumPy, isolated}
	return w, nil
}

func cause(err error) error {
	var e *exec.Error
	var p *os.PathError
	switch {
	case errors.As(err, &e):
		return e.Err
	case errors.As(err, &p):
		return p.Err
	}
	return err
}

// ask sends a request and waits for its answer. After an error the worker can't be
// used any more.
func (w *worker) ask(ctx context.Context, r *request, patience time.Duration) (*reply, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := w.in.Write(append(line, '\n'))
		sent <- err
	}()
	out := &reply{}
	err = w.read(ctx, patience, out)
	if err != nil {
		w.stop() // ends the write too
	}
	if e := <-sent; err == nil {
		err = e
	}
	if err == nil && out.ID != r.ID {
		err = fmt.Errorf("the interpreter answered request %d instead of %d", out.ID, r.ID)
	}
	return out, err
}

// read reads one line of JSON within the time.
func (w *worker) read(ctx context.Context, patience time.Duration, into any) error {
	kill := func() { _ = w.cmd.Process.Kill() } // Python may have ended already
	late := false
	timer := time.AfterFunc(patience, kill)
	stop := context.AfterFunc(ctx, kill)
	line, err := readLine(w.out)
	late = !timer.Stop()
	stop()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case late:
		return fmt.Errorf("the interpreter did not answer within %s", patience)
	case err != nil:
		state := w.stop()
		text := fmt.Sprintf("the interpreter ended (%s)", state)
		if line := w.notes.LastLine(); line != "" {
			text += ": " + line
		}
		return errors.New(text)
	}
	return json.Unmarshal(line, into)
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err != bufio.ErrBufferFull {
			return line, err
		}
		if len(line) > maxAnswer {
			return nil, fmt.Errorf("an answer is longer than %d bytes", maxAnswer)
		}
	}
}

// stop ends the worker and says how it ended.
func (w *worker) stop() string {
	if !w.ended {
		w.ended = true
		_ = w.in.Close()
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait() // the process's state has the same information as the error
	}
	return w.cmd.ProcessState.String()
}
