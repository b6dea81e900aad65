package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/store"
)

// The streams of an attempt's output.
var streams = []string{"stdout", "stderr"}

// maxLogBytes bounds a stream of one attempt.
const maxLogBytes = 64 << 20

// spool keeps the logs of attempts that run: a folder per lease, a file per
// stream, synced with every chunk.
type spool struct {
	dir string
	mu  sync.Mutex // one chunk at a time: offsets are compared with sizes
}

func (p *spool) open() error {
	return fleetscore.Wrap("open spool", p.dir, durable.MkdirAll(p.dir, 0o755))
}

func (p *spool) path(lease fleetscore.LeaseID, stream string) string {
	return filepath.Join(p.dir, string(lease), stream+".txt")
}

// append adds a chunk; one that is there already changes nothing.
func (p *spool) append(lease fleetscore.LeaseID, c dispatch.LogChunk) error {
	const op = "append log"
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := durable.MkdirAll(filepath.Join(p.dir, string(lease)), 0o755); err != nil {
		return fleetscore.Wrap(op, string(lease), err)
	}
	f, err := os.OpenFile(p.path(lease, c.Stream), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fleetscore.Wrap(op, string(lease), err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fleetscore.Wrap(op, string(lease), err)
	}
	size := st.Size()
	switch {
	case c.Offset > size:
		return fleetscore.Errorf(fleetscore.Conflict, op, c.Stream, "the chunk starts at byte %d, the log ends at %d", c.Offset, size)
	case c.Offset+int64(len(c.Data)) <= size:
		return nil
	case c.Offset+int64(len(c.Data)) > maxLogBytes:
		return fleetscore.Errorf(fleetscore.Exhausted, op, c.Stream, "it would exceed %d bytes", maxLogBytes)
	}
	if _, err := f.WriteAt(c.Data[size-c.Offset:], size); err != nil {
		return fleetscore.Wrap(op, string(lease), err)
	}
	err = f.Sync()
	if err == nil && size == 0 { // the file may be new
		err = durable.OS{}.SyncDir(filepath.Join(p.dir, string(lease)))
	}
	return fleetscore.Wrap(op, string(lease), err)
}

// note adds a line of the server's own to an attempt's stderr, if it has one.
func (p *spool) note(lease fleetscore.LeaseID, line string) error {
	st, err := os.Stat(p.path(lease, "stderr"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(p.dir, string(lease))); err != nil {
			return nil // the attempt wrote nothing at all
		}
		return p.append(lease, dispatch.LogChunk{Stream: "stderr", Data: []byte(line)})
	} else if err != nil {
		return fleetscore.Wrap("append log", string(lease), err)
	}
	return p.append(lease, dispatch.LogChunk{Stream: "stderr", Offset: st.Size(), Data: []byte(line)})
}

// AppendLog keeps a piece of an attempt's output. Kind Conflict if the lease
// ended, or if a piece before this one is missing.
func (s *Scheduler) AppendLog(ctx context.Context, lease fleetscore.LeaseID, c dispatch.LogChunk) error {
	const op = "append log"
	if c.Stream != streams[0] && c.Stream != streams[1] || c.Offset < 0 || len(c.Data) > dispatch.MaxLogChunkBytes {
		return fleetscore.Errorf(fleetscore.Invalid, op, c.Stream, "a chunk is of stdout or stderr and has at most %d bytes", dispatch.MaxLogChunkBytes)
	}
	a, _, err := s.ledger.Attempt(ctx, lease)
	if err != nil {
		return err
	}
	if a.Ended != nil {
		return fleetscore.Errorf(fleetscore.Conflict, op, string(a.Task), "attempt %d ended: %s", a.Number, a.State)
	}
	return s.spool.append(lease, c)
}

// seal moves the log of an ended attempt into the store.
func (s *Scheduler) seal(ctx context.Context, lease fleetscore.LeaseID) error {
	if _, err := os.Stat(filepath.Join(s.spool.dir, string(lease))); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	a, id, err := s.ledger.Attempt(ctx, lease)
	if err != nil {
		return err
	}
	j, err := s.ledger.Job(ctx, id)
	if err != nil {
		return err
	}
	index, err := taskIndex(a.Task)
	if err != nil {
		return err
	}
	for _, stream := range streams {
		data, err := os.ReadFile(s.spool.path(lease, stream))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return fleetscore.Wrap("seal log", string(a.Task), err)
		}
		if _, err := s.store.Put(ctx, catalog.TaskLog(j.Pipeline, id, index, a.Number, stream), bytes.NewReader(data), store.PutOptions{}); err != nil {
			return err
		}
	}
	return fleetscore.Wrap("seal log", string(a.Task), os.RemoveAll(filepath.Join(s.spool.dir, string(lease))))
}

// taskIndex reads the number at the end of a task's id.
func taskIndex(id fleetscore.TaskID) (n int, err error) {
	_, err = fmt.Sscanf(string(id[strings.LastIndexByte(string(id), '.')+1:]), "%d", &n)
	return n, fleetscore.Wrap("read task id", string(id), err)
}

// toSeal asks for the logs of ended attempts to be sealed.
func (s *Scheduler) toSeal() {
	select {
	case s.seals <- struct{}{}:
	default: // it was asked for already
	}
}

// sealLoop moves the logs of ended attempts into the store, in the background:
// nobody waits for it, and until then logs are read from the spool.
func (s *Scheduler) sealLoop(ctx context.Context) error {
	defer s.health.Report("logs", "")
	for failures := 0; ; {
		wait := time.Minute
		if err := s.sealAll(ctx); err != nil && ctx.Err() == nil {
			failures++
			wait = again("logs", failures)
			s.metrics.errors.WithLabelValues("logs").Inc()
			s.health.Report("logs", err.Error())
			s.log.Error("logs can't be kept and stay in the spool", "error", err, "wait", wait)
			if err := pause(ctx, wait, nil); err != nil {
				return err
			}
			continue
		}
		failures = 0
		s.health.Report("logs", "")
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-s.seals:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// sealAll seals the logs of all attempts that have ended.
func (s *Scheduler) sealAll(ctx context.Context) error {
	entries, err := os.ReadDir(s.spool.dir)
	if err != nil {
		return fleetscore.Wrap("read spool", s.spool.dir, err)
	}
	var problems []error
	for _, e := range entries {
		a, _, err := s.ledger.Attempt(ctx, fleetscore.LeaseID(e.Name()))
		switch {
		case fleetscore.NotFound.Is(err): // nobody's
			problems = append(problems, os.RemoveAll(filepath.Join(s.spool.dir, e.Name())))
		case err != nil:
			problems = append(problems, err)
		case a.Ended != nil:
			problems = append(problems, s.seal(ctx, a.Lease))
		}
	}
	return errors.Join(problems...)
}

// LogRef names one stream of one attempt.
type LogRef struct {
	Task      fleetscore.TaskID `json:"task"`
	Index     int               `json:"index"`
	Attempt   int               `json:"attempt"`
	Stream    string            `json:"stream"`
	State     string            `json:"state"` // of the attempt
	SizeBytes int64             `json:"size_bytes"`
}

// Logs lists a job's logs by task, attempt and stream.
func (s *Scheduler) Logs(ctx context.Context, id fleetscore.JobID) ([]LogRef, error) {
	j, err := s.ledger.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	tasks, err := s.ledger.Tasks(ctx, id)
	if err != nil {
		return nil, err
	}
	out := []LogRef{}
	for _, t := range tasks {
		attempts, err := s.ledger.Attempts(ctx, t.ID)
		if err != nil {
			return nil, err
		}
		for _, a := range attempts {
			for _, stream := range streams {
				size, err := s.logSize(ctx, j, t, a, stream)
				if fleetscore.NotFound.Is(err) {
					continue
				} else if err != nil {
					return nil, err
				}
				out = append(out, LogRef{Task: t.ID, Index: t.Index, Attempt: a.Number, Stream: stream, State: a.State, SizeBytes: size})
			}
		}
	}
	return out, nil
}

func (s *Scheduler) logSize(ctx context.Context, j fleetscore.Job, t fleetscore.Task, a fleetscore.Attempt, stream string) (int64, error) {
	if st, err := os.Stat(s.spool.path(a.Lease, stream)); err == nil {
		return st.Size(), nil
	}
	info, err := s.store.Stat(ctx, catalog.TaskLog(j.Pipeline, j.ID, t.Index, a.Number, stream))
	return info.SizeBytes, err
}

// OpenLog opens one log, as far as it is written; kind NotFound if there is none.
func (s *Scheduler) OpenLog(ctx context.Context, id fleetscore.JobID, index, attempt int, stream string) (io.ReadCloser, error) {
	const op = "open log"
	j, err := s.ledger.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	if stream != streams[0] && stream != streams[1] {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, stream, "a log is stdout or stderr")
	}
	attempts, err := s.ledger.Attempts(ctx, fleetscore.TaskID(fmt.Sprintf("%s.%03d", id, index)))
	if err != nil {
		return nil, err
	}
	for _, a := range attempts {
		if a.Number != attempt {
			continue
		}
		if f, err := os.Open(s.spool.path(a.Lease, stream)); err == nil {
			return f, nil
		}
	}
	return s.store.Get(ctx, catalog.TaskLog(j.Pipeline, id, index, attempt, stream), 0, -1)
}
