package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
)

// JetStreamConfig says where a hub lies and how long it keeps messages.
type JetStreamConfig struct {
	Dir        string        // the folder; made if absent; held by one process at a time
	Partitions int           // 0 means 1; at most 256; fixed once readings are stored
	Retention  time.Duration // age at which messages are dropped; 0 means 7 days; may change between openings
}

const (
	defaultRetention = 7 * 24 * time.Hour
	appendTimeout    = 30 * time.Second // of one append, when the caller sets no earlier deadline
	reserveBytes     = 64 << 20         // free space below which appends are refused, so that the disk never fills in mid-write
	repairPause      = time.Second      // between attempts to restart a failed engine
)

// jetStream is a Hub over NATS JetStream in this process.
//
// Every partition is a stream of its own: JetStream syncs each stored message
// by itself, so streams sync side by side, and a stream's sequence is the
// partition's without gaps. The folder's lock makes this process the only
// writer; so readers need no consumers: they fetch by sequence up to the last
// one acknowledged and wait for the next append.
type jetStream struct {
	cfg  JetStreamConfig
	log  *slog.Logger
	lock *os.File
	free func(dir string) (uint64, error) // bytes left on the disk
	done chan struct{}                    // closed by Close

	mu       sync.RWMutex // guards what follows; held for reading during an append
	engine   *engine      // nil after Close or a failed restart
	broken   error        // why the engine must be restarted; nil if it is well
	repaired time.Time    // last restart or attempt
	closed   bool

	tails []*tail
}

// tail is where a partition ends, and wakes its readers.
type tail struct {
	mu      sync.Mutex    // guards what follows
	last    uint64        // highest sequence known to be stored
	changed chan struct{} // closed and replaced when last grows
}

func (t *tail) advance(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq > t.last {
		t.last = seq
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

func (t *tail) look() (last uint64, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last, t.changed
}

// OpenJetStream opens or makes the hub in that folder. Conflict means that
// another process holds the folder, or that it has another number of partitions
// and holds readings. A nil log discards.
func OpenJetStream(ctx context.Context, cfg JetStreamConfig, log *slog.Logger) (Hub, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.Partitions == 0 {
		cfg.Partitions = 1
	}
	if cfg.Retention == 0 {
		cfg.Retention = defaultRetention
	}
	if cfg.Dir == "" || cfg.Partitions < 1 || cfg.Partitions > fleetscore.Shards || cfg.Retention < time.Second {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open hub", cfg.Dir, "%d partitions kept for %v", cfg.Partitions, cfg.Retention).
			WithHint("name a folder, 1 to %d partitions and a retention of a second or more", fleetscore.Shards)
	}
	h := &jetStream{cfg: cfg, log: log, free: freeBytes, done: make(chan struct{})}
	for range cfg.Partitions {
		h.tails = append(h.tails, &tail{changed: make(chan struct{})})
	}
	var err error
	if h.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if h.engine, err = h.start(ctx); err != nil {
		h.lock.Close()
		return nil, err
	}
	return h, nil
}

// lockDir makes the folder and takes its lock, which the kernel releases when
// the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, storageError("open hub", dir, err)
	}
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, storageError("open hub", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, storageError("open hub", dir, err)
		}
		holder := "another process"
		if b, err := os.ReadFile(name); err == nil && len(b) > 0 {
			holder = "process " + string(b)
		}
		return nil, fleetscore.Errorf(fleetscore.Conflict, "open hub", dir, "%s has it open", holder).
			WithHint("stop the other server, or use another --dir")
	}
	// The number only serves the message above; failing to write it is no harm.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d", os.Getpid()), 0)
	}
	return f, nil
}

func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}

// storageError gives a file system's error its kind and what to do.
func storageError(op, dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return diskFull(op, dir, err)
	case errors.Is(err, os.ErrPermission):
		return fleetscore.Errorf(fleetscore.Invalid, op, dir, "%w", err).WithHint("give this user the right to write there, or use another --dir")
	}
	return fleetscore.Errorf(fleetscore.Unavailable, op, dir, "%w", err)
}

func diskFull(op, dir string, err error) error {
	return fleetscore.Errorf(fleetscore.Exhausted, op, dir, "%w", err).
		WithHint("free space on that disk, or shorten hub.retention; nothing is lost, readings are taken again once there is room")
}

// Partitions implements Hub.
func (h *jetStream) Partitions() int { return h.cfg.Partitions }

func (h *jetStream) checkPartition(op string, partition int) error {
	if partition < 0 || partition >= h.cfg.Partitions {
		return fleetscore.Errorf(fleetscore.Invalid, op, h.cfg.Dir, "partition %d of %d doesn't exist", partition, h.cfg.Partitions)
	}
	return nil
}

// Append implements Hub.
func (h *jetStream) Append(ctx context.Context, partition int, stamp Stamp, r *fleetscore.Readings) (uint64, error) {
	const op = "append to hub"
	if err := h.checkPartition(op, partition); err != nil {
		return 0, err
	}
	if !stamp.Source.Valid() {
		return 0, fleetscore.Errorf(fleetscore.Invalid, op, h.cfg.Dir, "%q is no name of a source", stamp.Source)
	}
	if r != nil && (len(r.Columns) > maxColumns || len(r.Columns)*r.Len() > maxCells) {
		return 0, fleetscore.Errorf(fleetscore.Invalid, op, h.cfg.Dir, "%d readings of %d columns are too many for a message", r.Len(), len(r.Columns))
	}
	data := Encode(nil, stamp, r)
	if len(data) > MaxMessageBytes {
		return 0, fleetscore.Errorf(fleetscore.Invalid, op, h.cfg.Dir, "a message of %d bytes is over the limit of %d", len(data), MaxMessageBytes)
	}
	if left, err := h.free(h.cfg.Dir); err == nil && left < reserveBytes {
		return 0, diskFull(op, h.cfg.Dir, fmt.Errorf("only %d MB are left on the disk", left>>20))
	}
	if err := h.repair(ctx); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()

	h.mu.RLock()
	if h.engine == nil {
		h.mu.RUnlock()
		return 0, h.unavailable(op)
	}
	e := h.engine
	ack, err := e.js.Publish(ctx, subjectOf(partition), data)
	h.mu.RUnlock()
	if err != nil {
		return 0, h.appendError(ctx, e, op, err)
	}
	h.tails[partition].advance(ack.Sequence)
	return ack.Sequence, nil
}

// appendError judges a failed append. After a failed write a stream refuses all
// that follows until it is opened anew, so the engine is marked for a restart.
func (h *jetStream) appendError(ctx context.Context, e *engine, op string, err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) || errors.Is(err, jetstream.ErrNoStreamResponse) {
		h.mu.Lock()
		if h.engine == e && h.broken == nil {
			h.broken = err
			h.log.Error("hub engine failed; it will be restarted", "dir", h.cfg.Dir, "err", err)
		}
		h.mu.Unlock()
	}
	if left, ferr := h.free(h.cfg.Dir); ferr == nil && left < reserveBytes {
		return diskFull(op, h.cfg.Dir, err)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("no acknowledgement came: %w", err)
	}
	return fleetscore.Errorf(fleetscore.Unavailable, op, h.cfg.Dir, "%w", err).WithHint("send it again; repeats count once")
}

func (h *jetStream) unavailable(op string) error {
	return fleetscore.Errorf(fleetscore.Unavailable, op, h.cfg.Dir, "it is closed or restarting")
}

// repair restarts the engine if it failed, at most once in repairPause.
func (h *jetStream) repair(ctx context.Context) error {
	h.mu.RLock()
	well := h.broken == nil
	h.mu.RUnlock()
	if well {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken == nil || h.closed {
		return nil
	}
	if time.Since(h.repaired) < repairPause {
		return fleetscore.Errorf(fleetscore.Unavailable, "append to hub", h.cfg.Dir, "it is restarting after: %w", h.broken)
	}
	h.repaired = time.Now()
	if h.engine != nil {
		h.engine.stop()
		h.engine = nil
	}
	e, err := h.start(ctx)
	if err != nil {
		return err
	}
	h.engine, h.broken = e, nil
	h.log.Info("hub engine restarted", "dir", h.cfg.Dir)
	return nil
}

// Stats implements Hub.
func (h *jetStream) Stats(ctx context.Context) ([]Stats, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.engine == nil {
		return nil, h.unavailable("describe hub")
	}
	out := make([]Stats, h.cfg.Partitions)
	for i := range out {
		s, err := h.engine.js.Stream(ctx, streamOf(i))
		if err != nil {
			return nil, fleetscore.Errorf(fleetscore.Unavailable, "describe hub", h.cfg.Dir, "%w", err)
		}
		st := s.CachedInfo().State
		out[i] = Stats{Partition: i, First: st.FirstSeq, Last: st.LastSeq, Messages: st.Msgs, SizeBytes: st.Bytes}
		if st.Msgs == 0 {
			out[i].First = st.LastSeq + 1
		}
	}
	return out, nil
}

// Close implements Hub. It waits for running appends.
func (h *jetStream) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	close(h.done)
	if h.engine != nil {
		h.engine.stop()
		h.engine = nil
	}
	_ = unix.Flock(int(h.lock.Fd()), unix.LOCK_UN) // a process being forked just now holds the file for a moment longer
	return h.lock.Close()
}
