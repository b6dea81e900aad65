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

// taskLog collects the two streams of a task's log and sends them to the server in pieces:
// stdout is what models, scripts and commands print to their standard output, stderr is
// everything else. A server that is away delays them; it never delays the task.
type taskLog struct {
	n              *Node
	lease          fleetscore.LeaseID
	stop           context.CancelFunc
	done           chan struct{}
	stdout, stderr logStream
}

// logStream is one of the two.
type logStream struct {
	name string

	mu     sync.Mutex // guards what follows
	text   []byte     // not acknowledged yet
	offset int64      // of its first byte
	full   bool       // the server takes no more of it
}

func (n *Node) newTaskLog(ctx context.Context, lease fleetscore.LeaseID) *taskLog {
	l := &taskLog{n: n, lease: lease, done: make(chan struct{}), stdout: logStream{name: "stdout"}, stderr: logStream{name: "stderr"}}
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

// printf adds a line with the time to stderr.
func (l *taskLog) printf(format string, args ...any) { l.stderr.add(l.n.now(), format, args...) }

// print adds a line with the time to stdout.
func (l *taskLog) print(format string, args ...any) { l.stdout.add(l.n.now(), format, args...) }

// add adds a line with the time. Further lines of the text are indented, so
// that nothing in it can pass for a line of ours.
func (s *logStream) add(now time.Time, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return
	}
	s.text = now.UTC().AppendFormat(s.text, "2006-01-02T15:04:05.000Z ")
	for i, line := range strings.Split(fmt.Sprintf(format, args...), "\n") {
		if i > 0 {
			s.text = append(s.text, "\n    "...)
		}
		s.text = append(s.text, fleetscore.Printable(strings.ReplaceAll(line, "\t", "  "))...)
	}
	s.text = append(s.text, '\n')
}

// next is the piece to send; without data if there is nothing.
func (s *logStream) next() dispatch.LogChunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return dispatch.LogChunk{Stream: s.name, Offset: s.offset, Data: append([]byte(nil), s.text[:min(len(s.text), dispatch.MaxLogChunkBytes)]...)}
}

// sent forgets a piece that the server has, or everything if the server takes no more.
func (s *logStream) sent(c dispatch.LogChunk, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if full {
		s.text, s.full = nil, true
		return
	}
	s.text = s.text[len(c.Data):]
	s.offset += int64(len(c.Data))
}

// flush sends what wasn't sent, in pieces, as far as the server takes it.
func (l *taskLog) flush(ctx context.Context) error {
	for _, s := range []*logStream{&l.stdout, &l.stderr} {
		for c := s.next(); len(c.Data) > 0; c = s.next() {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			call, cancel := context.WithTimeout(ctx, requestTimeout)
			err := l.n.server.AppendLog(call, l.lease, c)
			cancel()
			full := fleetscore.Exhausted.Is(err)
			if err != nil && !full {
				return err
			}
			if full {
				l.n.log.Warn("the rest of a task's log is lost", "stream", s.name, "error", err)
			}
			s.sent(c, full)
		}
	}
	return ctx.Err()
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
		case fleetscore.Conflict, fleetscore.NotFound, fleetscore.Invalid:
			l.n.log.Warn("the end of a task's log is lost", "error", err)
			return
		}
		if l.n.unreached(err) != nil || l.n.rest(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, 5*time.Second)
	}
}
