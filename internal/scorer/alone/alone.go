// Package alone scores models in a child process, one after the other. It is a
// scorer.Runtime around another one, which runs in the child: a model that crashes,
// hangs or eats memory ends the child, and costs only its own key.
//
// The parent process reads no model. It knows which model ended the child, because it
// waits for the child's answer to each message. A model that ended the child is tried
// once more in a new child, since something else may have killed the first one.
//
// A worker belongs to one goroutine. Close ends its child.
package alone

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scorer"
)

// Limits bound what a model may use.
type Limits struct {
	ModelTimeout time.Duration // of loading a model; 0 means 10 s
	MemoryBytes  int64         // of the child, its program included; 0 means no limit
}

// Config says how models are scored alone.
type Config struct {
	// Command makes the child, which calls Serve with its standard input and output.
	Command func() (*exec.Cmd, error)
	Limits  Limits
	Now     func() time.Time // the clock that deadlines are told by; nil means time.Now
}

// Runtime is a scorer.Runtime that scores in child processes.
type Runtime struct{ cfg Config }

// New makes the runtime; nothing is started yet.
func New(cfg Config) *Runtime {
	if cfg.Limits.ModelTimeout <= 0 {
		cfg.Limits.ModelTimeout = 10 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Runtime{cfg}
}

// Worker implements scorer.Runtime. It starts the child.
func (r *Runtime) Worker() (scorer.Worker, error) {
	w := &worker{cfg: r.cfg}
	return w, w.start(context.Background())
}

// startWithin is how long a child may take until it answers for the first time.
const startWithin = 30 * time.Second

// worker is a child and what it has loaded.
type worker struct {
	cfg   Config
	child *child // nil if it has ended
	data  []byte // of the model
	model loaded
}

// loaded is what the child told of a model.
type loaded struct {
	Traits scorer.Traits
	Names  []string
}

// start starts a child and tells it its limits. A child that can't be started is nobody's
// fault: kind Unavailable.
func (w *worker) start(ctx context.Context) error {
	cmd, err := w.cfg.Command()
	if err == nil {
		w.child, err = newChild(cmd)
	}
	if err == nil {
		_, err = w.child.ask(ctx, startWithin, &request{Op: opStart, MemoryBytes: w.cfg.Limits.MemoryBytes})
	}
	if err != nil {
		w.end()
		return fleetscore.Errorf(fleetscore.Unavailable, "start process for suspect models", "", "%w", err)
	}
	return nil
}

func (w *worker) end() {
	if w.child != nil {
		w.child.kill()
		w.child = nil
	}
}

// Close implements scorer.Worker.
func (w *worker) Close() { w.end() }

// Load implements scorer.Worker.
func (w *worker) Load(ctx context.Context, data []byte) (scorer.Model, error) {
	w.data = data
	return w, w.twice(ctx, w.load)
}

// load lets the child load the model.
func (w *worker) load(ctx context.Context) error {
	deadline := w.cfg.Now().Add(w.cfg.Limits.ModelTimeout)
	w.child.loaded = false
	for rest := w.data; ; {
		piece := rest[:min(len(rest), maxPiece)]
		rest = rest[len(piece):]
		a, err := w.child.ask(ctx, deadline.Sub(w.cfg.Now()), &request{Op: opLoad, Data: piece, More: len(rest) > 0})
		if err != nil {
			return err
		}
		if len(rest) == 0 {
			w.model, w.child.loaded = a.Model, true
			return nil
		}
	}
}

// twice does something with the child. If the child ends over it, a new child tries
// again; if that ends too, the model is to blame.
func (w *worker) twice(ctx context.Context, do func(context.Context) error) error {
	for try := 1; ; try++ {
		if w.child == nil {
			if err := w.start(ctx); err != nil {
				return err
			}
		}
		err := do(ctx)
		var ended *endedError
		switch {
		case errors.Is(err, scorer.ErrTimeout) || ctx.Err() != nil:
			w.end()
			return err
		case !errors.As(err, &ended):
			return err
		}
		w.end()
		if try == 2 {
			return &scorer.HarmError{Cause: w.blame(ended)}
		}
	}
}

// blame says what a model did.
func (w *worker) blame(e *endedError) string {
	s := "the model ended the process that scored it, twice: " + e.how
	if e.last != "" {
		s += ": " + e.last
	}
	if n := w.cfg.Limits.MemoryBytes; n > 0 {
		s += fmt.Sprintf(" (the process may use %d MiB of memory)", n>>20)
	}
	return s
}

// Traits implements scorer.Model.
func (w *worker) Traits() scorer.Traits { return w.model.Traits }

// HasFeatureNames implements scorer.Model.
func (w *worker) HasFeatureNames(names []string) bool {
	return len(w.model.Names) > 0 && slices.Equal(w.model.Names, names)
}

// FeatureNames implements scorer.Model.
func (w *worker) FeatureNames() []string { return w.model.Names }

// Predict implements scorer.Model.
func (w *worker) Predict(ctx context.Context, deadline time.Time, columns [][]float64, prediction, score []float64) error {
	return w.twice(ctx, func(ctx context.Context) error {
		if !w.child.loaded { // it is a new one
			if err := w.load(ctx); err != nil {
				return err
			}
		}
		a, err := w.child.ask(ctx, deadline.Sub(w.cfg.Now()), &request{Op: opPredict, Deadline: deadline, Columns: columns, Rows: len(prediction)})
		if err != nil {
			return err
		}
		if len(a.Prediction) != len(prediction) || len(a.Score) != len(score) {
			return fleetscore.Errorf(fleetscore.Internal, "score", "", "the process for suspect models answered with %d predictions and %d scores for %d rows", len(a.Prediction), len(a.Score), len(prediction))
		}
		copy(prediction, a.Prediction)
		copy(score, a.Score)
		return nil
	})
}
