package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// startProgress shows on a terminal how far a stage of total units is (0 if that
// isn't known), until end is called; elsewhere it is silent. Whoever works adds to
// done.
func startProgress(w io.Writer, stage string, done *atomic.Int64, total int64, unit string) (end func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}
	}
	p := &progress{w: w, done: done, stop: make(chan struct{}), ended: make(chan struct{})}
	go p.show(stage, total, unit)
	return func() {
		close(p.stop)
		<-p.ended
	}
}

// showProgress is startProgress for work that reports itself how far it is.
func showProgress(w io.Writer, stage, unit string) (report func(done, total int64), end func()) {
	var at atomic.Int64
	var once sync.Once
	stop := func() {}
	return func(done, total int64) {
		at.Store(done)
		once.Do(func() { stop = startProgress(w, stage, &at, total, unit) })
	}, func() { once.Do(func() {}); stop() }
}

type progress struct {
	w     io.Writer
	done  *atomic.Int64
	stop  chan struct{}
	ended chan struct{}
}

func (p *progress) show(stage string, total int64, unit string) {
	defer close(p.ended)
	began, drawn := time.Now(), false
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			if drawn {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		case <-t.C:
			if took := time.Since(began); took > time.Second {
				fmt.Fprint(p.w, "\r\x1b[K", progressLine(stage, p.done.Load(), total, unit, took))
				drawn = true
			}
		}
	}
}

const barWidth = 24

// progressLine is "reading  [######······]  52 %  1,200 of 2,300 MB  310 MB/s".
func progressLine(stage string, done, total int64, unit string, took time.Duration) string {
	scale := int64(1)
	if unit == "MB" {
		scale = 1e6
	}
	rate := thousands(int64(float64(done)/took.Seconds())/scale) + " " + unit + "/s"
	if total <= 0 {
		return fmt.Sprintf("%-8s %s %s  %s", stage, thousands(done/scale), unit, rate)
	}
	done = min(done, total)
	full := int(barWidth * done / total)
	return fmt.Sprintf("%-8s [%s%s] %3d %%  %s of %s %s  %s", stage, strings.Repeat("#", full), strings.Repeat("·", barWidth-full),
		100*done/total, thousands(done/scale), thousands(total/scale), unit, rate)
}
