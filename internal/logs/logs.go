// Package logs keeps what attempts of tasks write: while an attempt runs in a spool,
// durable with every piece, and after its end as blobs of the store. The spool is a folder
// of the server, or the ledger's database, where it survives the server that took the
// pieces and is seen by all servers.
//
// Nodes send pieces with the lease of their attempt. Ended attempts are found by the
// ledger's events and, after a restart, by what lies in the spool; their logs are moved
// into the store in the background, and nobody waits for that. People read a log the
// same way wherever it lies. The package deletes no sealed logs: catalog does.
//
// Run owns all goroutines; all other methods are safe for concurrent use.
package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Config says where logs lie while their attempts run.
type Config struct {
	SpoolDir string        // a folder for this package alone; made if absent
	Pieces   ledger.Pieces // where logs of attempts lie instead of SpoolDir; nil means nowhere
}

// Deps is what the package works with.
type Deps struct {
	Ledger  Ledger
	Store   store.Bucket
	Log     *slog.Logger          // nil discards
	Now     func() time.Time      // nil means time.Now
	Health  *obs.Health           // what doesn't work is reported there; nil means nowhere
	Metrics prometheus.Registerer // nil means none
}

// Ledger is what logs need of the ledger.
type Ledger interface {
	ledger.Jobs
	ledger.Tasks
	ledger.Nodes
	ledger.Events
}

// Logs keeps the logs of all attempts.
type Logs struct {
	ledger Ledger
	store  store.Bucket
	spool  spool
	turns  lifecycle.Turns[fleetscore.LeaseID] // at the log of a lease

	nodeDir string                      // where what running nodes write themselves lies
	nodes   sync.Mutex                  // held while the log of a node is used; guards next
	next    map[fleetscore.NodeID]int64 // where the next piece of a node's own log begins
	loops   lifecycle.Loops[ledger.Topic]
}

// New makes the spool folder.
func New(cfg Config, deps Deps) (*Logs, error) {
	if cfg.SpoolDir == "" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "configure logs", "", "they need a spool folder")
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	failures := prometheus.NewCounter(prometheus.CounterOpts{Name: "fleetscore_logs_seal_failures_total",
		Help: "How often logs of ended attempts could not be moved into the store; they stay in the spool and are moved later."})
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(failures); err != nil {
			return nil, err
		}
	}
	l := &Logs{ledger: deps.Ledger, store: deps.Store, spool: database{cfg.Pieces}, nodeDir: filepath.Join(filepath.Clean(cfg.SpoolDir), nodesDir), next: map[fleetscore.NodeID]int64{},
		loops: lifecycle.Loops[ledger.Topic]{Outages: &lifecycle.Outages{}, Watch: deps.Ledger.Watch, Now: deps.Now, Failed: func(string) { failures.Inc() }, Health: deps.Health, Log: deps.Log}}
	if cfg.Pieces != nil {
		return l, nil
	}
	l.spool = &folder{dir: filepath.Clean(cfg.SpoolDir), ledger: deps.Ledger}
	return l, fleetscore.Wrap("open spool", cfg.SpoolDir, durable.MkdirAll(cfg.SpoolDir, 0o755))
}

// sealEvery is how often the spool is looked at without an event.
const sealEvery = time.Minute

// Run moves the logs of ended attempts into the store until ctx ends.
func (l *Logs) Run(ctx context.Context) error {
	return l.loops.Run(ctx, lifecycle.Loop[ledger.Topic]{Kind: "logs", Part: "logs", Watch: []ledger.Topic{ledger.AttemptsTopic},
		Step: func(ctx context.Context) (lifecycle.Next[ledger.Topic], error) {
			return lifecycle.Next[ledger.Topic]{Wake: l.loops.Now().Add(sealEvery)}, l.Seal(ctx)
		}})
}

// AppendLog keeps a piece of an attempt's output. Kind Conflict if the lease
// ended, or if a piece before this one is missing.
func (l *Logs) AppendLog(ctx context.Context, lease fleetscore.LeaseID, c dispatch.LogChunk) error {
	const op = "append log"
	if c.Stream != streams[0] && c.Stream != streams[1] || c.Offset < 0 || len(c.Data) > dispatch.MaxLogChunkBytes {
		return fleetscore.Errorf(fleetscore.Invalid, op, c.Stream, "a chunk is of stdout or stderr and has at most %d bytes", dispatch.MaxLogChunkBytes)
	}
	done, err := l.turns.Take(ctx, lease)
	if err != nil {
		return err
	}
	defer done()
	return l.spool.add(ctx, lease, c)
}

// Seal moves the logs of all attempts and nodes that have ended into the store. A log that can't be
// moved doesn't hold up the others; the error names all logs that weren't moved.
func (l *Logs) Seal(ctx context.Context) error {
	leases, err := l.spool.leases(ctx)
	if err != nil {
		return err
	}
	problems := []error{l.sealNodes(ctx)}
	for _, lease := range leases {
		a, job, err := l.ledger.Attempt(ctx, lease)
		switch {
		case fleetscore.NotFound.Is(err): // its job was forgotten
			problems = append(problems, l.spool.remove(ctx, lease))
		case err != nil:
			problems = append(problems, err)
		case a.Ended != nil:
			problems = append(problems, l.seal(ctx, a, job))
		}
	}
	return errors.Join(problems...)
}

// seal moves the log of an ended attempt into the store.
func (l *Logs) seal(ctx context.Context, a fleetscore.Attempt, id fleetscore.JobID) error {
	done, err := l.turns.Take(ctx, a.Lease) // waits for a piece that began before the attempt's end; later ones are refused
	if err != nil {
		return err
	}
	done()
	j, err := l.ledger.Job(ctx, id)
	if err != nil {
		return err
	}
	index, err := taskIndex(a.Task)
	if err != nil {
		return err
	}
	sizes, err := l.spool.sizes(ctx, id, []fleetscore.LeaseID{a.Lease})
	if err != nil {
		return err
	}
	for _, stream := range streams {
		size, has := live(sizes, a, stream)
		if !has || size == 0 {
			continue
		}
		in, err := l.open(ctx, a, stream, 0, size)
		if err != nil {
			return fleetscore.Wrap("seal log", string(a.Task), err)
		}
		data, err := io.ReadAll(in)
		in.Close()
		if err != nil {
			return fleetscore.Wrap("seal log", string(a.Task), err)
		}
		if int64(len(data)) < size { // another server, which led until now, has moved it meanwhile
			return nil
		}
		if _, err := l.store.Put(ctx, catalog.TaskLog(j, index, a.Number, stream), bytes.NewReader(data), store.PutOptions{}); err != nil {
			return err
		}
	}
	return l.spool.remove(ctx, a.Lease)
}

// taskIndex reads the number at the end of a task's id.
func taskIndex(id fleetscore.TaskID) (n int, err error) {
	_, err = fmt.Sscanf(string(id[strings.LastIndexByte(string(id), '.')+1:]), "%d", &n)
	return n, fleetscore.Wrap("read task id", string(id), err)
}

// Ref names one stream of one attempt.
type Ref struct {
	Task      fleetscore.TaskID
	Index     int
	Attempt   int
	Stream    string
	State     string // of the attempt
	SizeBytes int64
}

// List names a job's logs by task, attempt and stream. However many they are, the
// store is asked once.
func (l *Logs) List(ctx context.Context, id fleetscore.JobID) ([]Ref, error) {
	j, err := l.ledger.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	tasks, err := l.ledger.Tasks(ctx, id)
	if err != nil {
		return nil, err
	}
	const sealed = -1
	var all []Ref
	var made []fleetscore.Attempt
	var leases []fleetscore.LeaseID
	for _, t := range tasks {
		attempts, err := l.ledger.Attempts(ctx, t.ID)
		if err != nil {
			return nil, err
		}
		for _, a := range attempts {
			for _, stream := range streams {
				all = append(all, Ref{Task: t.ID, Index: t.Index, Attempt: a.Number, Stream: stream, State: a.State, SizeBytes: sealed})
				made = append(made, a)
			}
			leases = append(leases, a.Lease)
		}
	}
	sizes, err := l.spool.sizes(ctx, id, leases)
	if err != nil {
		return nil, err
	}
	for i, a := range made {
		if size, has := live(sizes, a, all[i].Stream); has && size > 0 {
			all[i].SizeBytes = size
		}
	}
	// The store is listed after the spool, because logs move from the spool to the store.
	inStore, err := catalog.JobLogs(ctx, l.store, j.Pipeline, id)
	if err != nil {
		return nil, err
	}
	out := []Ref{}
	for _, ref := range all {
		if ref.SizeBytes == sealed {
			size, ok := inStore[catalog.TaskLog(j, ref.Index, ref.Attempt, ref.Stream)]
			if !ok {
				continue // this stream wrote nothing
			}
			ref.SizeBytes = size
		}
		out = append(out, ref)
	}
	return out, nil
}

// Open opens one log from a byte on, as far as it is written; kind NotFound if there is
// none.
func (l *Logs) Open(ctx context.Context, id fleetscore.JobID, index, attempt int, stream string, from int64) (io.ReadCloser, error) {
	const op = "open log"
	j, err := l.ledger.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	if stream != streams[0] && stream != streams[1] {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, stream, "a log is stdout or stderr")
	}
	attempts, err := l.ledger.Attempts(ctx, fleetscore.TaskID(fmt.Sprintf("%s.%03d", id, index)))
	if err != nil {
		return nil, err
	}
	for _, a := range attempts {
		if a.Number != attempt {
			continue
		}
		sizes, err := l.spool.sizes(ctx, id, []fleetscore.LeaseID{a.Lease})
		if err != nil {
			return nil, err
		}
		if size, has := live(sizes, a, stream); has && size > 0 {
			return l.open(ctx, a, stream, from, size)
		}
	}
	in, err := l.store.Get(ctx, catalog.TaskLog(j, index, attempt, stream), 0, -1)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, in, from); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// note is the end of the log of an attempt that was taken back: why.
func note(a fleetscore.Attempt, stream string) string {
	if stream == "stderr" && a.Ended != nil && a.State != string(dispatch.Succeeded) && a.State != string(dispatch.Failed) {
		return fmt.Sprintf("attempt %d was taken back: %s\n", a.Number, a.Reason)
	}
	return ""
}

// live is the size of a log that still lies in the spool, and whether the attempt has logs
// there.
func live(sizes map[fleetscore.LeaseID]map[string]int64, a fleetscore.Attempt, stream string) (size int64, has bool) {
	of, has := sizes[a.Lease]
	if !has {
		return 0, false
	}
	return of[stream] + int64(len(note(a, stream))), true
}

// open opens a log of that size that lies in the spool, from a byte on.
func (l *Logs) open(ctx context.Context, a fleetscore.Attempt, stream string, from, size int64) (io.ReadCloser, error) {
	in, err := l.spool.read(ctx, a.Lease, stream, from)
	if err != nil {
		return nil, err
	}
	end := note(a, stream)
	had := max(0, from-(size-int64(len(end)))) // of the note
	return withNote{io.MultiReader(in, strings.NewReader(end[min(had, int64(len(end))):])), in}, nil
}

// withNote is a log with a note at its end.
type withNote struct {
	io.Reader
	io.Closer
}
