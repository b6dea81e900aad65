package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// logEvery is how often new lines of a task's log are sent.
const logEvery = 300 * time.Millisecond

// taskLog collects a task's log lines and sends them to the server in pieces. A
// server that is away delays them; it never delays the task.
type taskLog struct {
	n     *Node
	lease fleetscore.LeaseID
	stop  context.CancelFunc
	done  chan struct{}

	mu     sync.Mutex // guards what follows
	text   []byte     // not acknowledged yet
	offset int64      // of its first byte
}

func (n *Node) newTaskLog(ctx context.Context, lease fleetscore.LeaseID) *taskLog {
	l := &taskLog{n: n, lease: lease, done: make(chan struct{})}
	loop, stop := context.WithCancel(ctx)
	l.stop = stop
	go func() {
		defer close(l.done)
		ticker := time.NewTicker(logEvery)
		defer ticker.Stop()
		for {
			select {
			case <-loop.Done():
				return
			case <-ticker.C:
				if loop.Err() != nil { // a select between two ready channels chooses by chance
					return
				}
				_ = l.flush(ctx) // what didn't arrive is sent again
			}
		}
	}()
	return l
}

// printf adds a line with the time. Further lines of the text are indented, so
// that nothing in it can pass for a line of ours.
func (l *taskLog) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = l.n.now().UTC().AppendFormat(l.text, "2006-01-02T15:04:05.000Z ")
	for i, line := range strings.Split(fmt.Sprintf(format, args...), "\n") {
		if i > 0 {
			l.text = append(l.text, "\n    "...)
		}
		l.text = append(l.text, fleetscore.Printable(strings.ReplaceAll(line, "\t", "  "))...)
	}
	l.text = append(l.text, '\n')
}

// flush sends what wasn't sent, in pieces, as far as the server takes it.
func (l *taskLog) flush(ctx context.Context) error {
	for {
		l.mu.Lock()
		piece := l.text[:min(len(l.text), dispatch.MaxLogChunkBytes)]
		chunk := dispatch.LogChunk{Stream: "stderr", Offset: l.offset, Data: append([]byte(nil), piece...)}
		l.mu.Unlock()
		if len(chunk.Data) == 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		call, cancel := context.WithTimeout(ctx, requestTimeout)
		err := l.n.server.AppendLog(call, l.lease, chunk)
		cancel()
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.text = l.text[len(chunk.Data):]
		l.offset += int64(len(chunk.Data))
		l.mu.Unlock()
	}
}

// close sends the last lines, waiting for a server that is away.
func (l *taskLog) close(ctx context.Context) {
	l.stop()
	<-l.done
	pause := 100 * time.Millisecond
	for {
		err := l.flush(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		switch fleetscore.KindOf(err) {
		case fleetscore.Conflict, fleetscore.NotFound, fleetscore.Invalid, fleetscore.Exhausted:
			l.n.log.Warn("the end of a task's log is lost", "bytes", len(l.text), "error", err)
			return
		}
		if l.n.unreached(err) != nil || l.n.rest(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, 5*time.Second)
	}
}
