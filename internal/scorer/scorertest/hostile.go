package scorertest

import (
	"bytes"
	"context"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/fleetscore/fleetscore/internal/scorer"
)

// What a model of the runtime Hostile does when a row's first feature has one of these
// values.
const (
	Crash = -66601 // it kills the process
	Hang  = -66602 // it never ends
	Eat   = -66603 // it takes memory until there is none
)

// CrashOnLoad is part of the bytes of a model that kills the process when it is loaded.
const CrashOnLoad = "crash on load"

// Hostile is a runtime whose models harm the process that scores them. Only a process of
// its own may use it.
type Hostile struct{ scorer.Runtime }

// Worker implements scorer.Runtime.
func (h Hostile) Worker() (scorer.Worker, error) {
	w, err := h.Runtime.Worker()
	return hostileWorker{w}, err
}

type hostileWorker struct{ scorer.Worker }

// Load implements scorer.Worker.
func (h hostileWorker) Load(ctx context.Context, data []byte) (scorer.Model, error) {
	if bytes.Contains(data, []byte(CrashOnLoad)) {
		die()
	}
	m, err := h.Worker.Load(ctx, data)
	if err != nil {
		return nil, err
	}
	return hostileModel{m}, nil
}

type hostileModel struct{ scorer.Model }

// Predict implements scorer.Model.
func (h hostileModel) Predict(ctx context.Context, deadline time.Time, columns [][]float64, prediction, score []float64) error {
	switch first := columns[0]; {
	case slices.Contains(first, Crash):
		die()
	case slices.Contains(first, Hang):
		select {}
	case slices.Contains(first, Eat):
		var eaten [][]byte
		for {
			b := make([]byte, 16<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			eaten = append(eaten, b)
			_ = eaten
		}
	}
	return h.Model.Predict(ctx, deadline, columns, prediction, score)
}

// die ends this process as the kernel does when memory is used up.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
