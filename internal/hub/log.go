package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
)

// Config says where a hub is stored and how long it keeps messages.
type Config struct {
	Dir        string        // the folder, which is made if it doesn't exist; one process at a time may use it
	Partitions int           // 0 means 1; at most 256; fixed once readings are stored
	Retention  time.Duration // age at which unneeded messages are dropped; 0 means 7 days; may change between openings
	Size       int64         // bytes of all partitions together, beyond which the oldest unneeded messages are dropped; 0 means no limit; may change too

	segmentBytes int64 // 0 means 128 MiB
}

// Deps are the other parts of the server that a hub uses.
type Deps struct {
	Log    *slog.Logger // nil discards
	Health Health       // nil discards
	// Trouble makes what tells people of removals that fail; each is used by one goroutine. Nil logs each failure.
	Trouble func() Trouble
	Now     func() time.Time // the time from which ages are counted; nil means time.Now
	// Needed returns the first message of a partition that is still needed, for
	// example by a query that has not committed the message. This message and later
	// ones are kept whatever their age and size. 0 keeps everything. Nil means that no message
	// is needed.
	Needed func(partition int) uint64
}

// Health receives reports of parts that don't work; *obs.Health implements it. Report
// says that a part fails or, with an empty text, that the part works again. Warn says
// that a part needs attention.
type Health interface {
	Report(part, problem string)
	Warn(part, text string)
}

// Trouble is told of each failure of work that is tried again, and of each success;
// *lifecycle.Trouble implements it, and logs an outage at growing distances.
type Trouble interface {
	Failed(level slog.Level, message string, err error, args ...any)
	Works(message string, args ...any)
}

// everyFailure is a Trouble that logs each failure.
type everyFailure struct{ log *slog.Logger }

func (e everyFailure) Failed(level slog.Level, message string, err error, args ...any) {
	e.log.Log(context.Background(), level, message, append(args, "error", err)...)
}

func (everyFailure) Works(string, ...any) {}

// Defaults fills in what is left out, but Needed, whose absence has a meaning of its own.
func (d Deps) Defaults() Deps {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Health == nil {
		d.Health = noHealth{}
	}
	if d.Trouble == nil {
		d.Trouble = func() Trouble { return everyFailure{d.Log} }
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return d
}

type noHealth struct{}

func (noHealth) Report(string, string) {}
func (noHealth) Warn(string, string)   {}

const (
	defaultRetention = 7 * 24 * time.Hour
	reserveBytes     = 64 << 20 // free space below which appends are refused, so that the disk never fills in mid-write
	lowBytes         = 1 << 30  // free space below which a warning is given
	closeLimit       = 10 * time.Second
	maxDamage        = 1000 // ranges that are remembered
)

// segmentLog is a Hub in a folder of files; see docs/formats/hub-log.md.
type segmentLog struct {
	cfg     Config
	slog    *slog.Logger
	health  Health
	now     func() time.Time
	needed  func(partition int) uint64
	started time.Time // for the stopwatch, which no change of the wall clock moves
	disk    disk
	lock    *os.File // nil in tests without a folder

	hub        int64 // id of the hub
	epoch      int64 // id of this opening
	partitions []*partition
	done       chan struct{} // closed by Close
	warnings   *Warnings
	trouble    func() Trouble
	writers    sync.WaitGroup
	spare      sync.Pool // of *[]byte

	mu      sync.Mutex // guards what follows
	closed  bool
	failing map[int]string // partitions whose last append failed, and why
	low     bool           // whether the disk was low at the last look
}

// Open opens or makes the hub in that folder. Conflict means that another process
// holds the folder, or that it has another number of partitions and holds readings.
//
// Damage in the folder loses the messages that it touches. Lost messages are counted
// in Stats, reported to Health and skipped, and their sequences aren't used again.
// Bytes after the last intact message that were not noted as acknowledged are not
// damage: they are the rest of a write that a crash interrupted.
func Open(ctx context.Context, cfg Config, deps Deps) (Hub, error) {
	return open(ctx, cfg, deps, osDisk{})
}

func open(ctx context.Context, cfg Config, deps Deps, d disk) (*segmentLog, error) {
	if cfg.Partitions == 0 {
		cfg.Partitions = 1
	}
	if cfg.Retention == 0 {
		cfg.Retention = defaultRetention
	}
	if cfg.segmentBytes == 0 {
		cfg.segmentBytes = segmentBytes
	}
	if cfg.Dir == "" || cfg.Partitions < 1 || cfg.Partitions > fleetscore.Shards || cfg.Retention < time.Second || cfg.Size < 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open hub", cfg.Dir, "%d partitions with a retention of %v and %s are not possible", cfg.Partitions, cfg.Retention, fleetscore.Size(cfg.Size)).
			WithHint("name a folder, 1 to %d partitions, a retention of a second or more and no negative size", fleetscore.Shards)
	}
	if cfg.Size > 0 {
		cfg.segmentBytes = min(cfg.segmentBytes, cfg.Size/int64(10*cfg.Partitions))
	}
	deps = deps.Defaults()
	h := &segmentLog{cfg: cfg, slog: deps.Log, health: deps.Health, trouble: deps.Trouble, now: deps.Now, needed: deps.Needed, started: time.Now(), disk: d,
		warnings: NewWarnings(deps.Health), epoch: newID(), done: make(chan struct{}), failing: map[int]string{}}
	if h.needed == nil {
		h.needed = func(int) uint64 { return math.MaxUint64 }
	}
	if _, ok := d.(osDisk); ok {
		var err error
		if h.lock, err = lockDir(cfg.Dir); err != nil {
			return nil, err
		}
	}
	err := h.load(ctx)
	if err != nil {
		h.unlock()
		return nil, err
	}
	for _, p := range h.partitions {
		h.writers.Go(p.run)
	}
	return h, nil
}

func (h *segmentLog) load(ctx context.Context) error {
	if err := h.identify(); err != nil {
		return err
	}
	for i := range h.cfg.Partitions {
		if err := ctx.Err(); err != nil {
			return fleetscore.Wrap("open hub", h.cfg.Dir, err)
		}
		p := h.newPartition(i)
		if err := p.load(); err != nil {
			return storageError("open hub", h.cfg.Dir, err)
		}
		h.partitions = append(h.partitions, p)
	}
	return nil
}

func (h *segmentLog) newPartition(i int) *partition {
	return &partition{log: h, index: i, dir: filepath.Join(h.cfg.Dir, partitionName(i)), requests: make(chan *request), changed: make(chan struct{}),
		decoded: decodedLog{limit: min(sharedBytes, allBytes/max(h.cfg.Partitions, 1))}}
}

// stopwatch returns the time since the log was opened.
func (h *segmentLog) stopwatch() time.Duration { return time.Since(h.started) }

func (h *segmentLog) unlock() {
	if h.lock == nil {
		return
	}
	_ = unix.Flock(int(h.lock.Fd()), unix.LOCK_UN) // without this a process that is being forked would hold the lock a moment longer
	_ = h.lock.Close()                             // the file holds nothing that must be kept
}

// Partitions implements Hub.
func (h *segmentLog) Partitions() int { return h.cfg.Partitions }

// ID implements Hub.
func (h *segmentLog) ID() int64 { return h.hub }

func (h *segmentLog) partition(op string, i int) (*partition, error) {
	if i < 0 || i >= h.cfg.Partitions {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, h.cfg.Dir, "partition %d of %d doesn't exist", i, h.cfg.Partitions)
	}
	return h.partitions[i], nil
}

// Append implements Hub.
func (h *segmentLog) Append(ctx context.Context, partition int, stamp Stamp, readings ...*fleetscore.Readings) (uint64, error) {
	const op = "append to hub"
	p, err := h.partition(op, partition)
	if err != nil {
		return 0, err
	}
	if len(readings) == 0 {
		readings = []*fleetscore.Readings{nil}
	}
	messages := make([][]byte, len(readings))
	for i, r := range readings {
		if messages[i], err = Marshal(h.buffer(), h.cfg.Dir, stamp, r); err != nil {
			return 0, err
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, fleetscore.Wrap(op, h.cfg.Dir, err)
	}
	seq, err := p.append(ctx, stamp, readings, messages)
	var classified *fleetscore.Error
	switch {
	case err == nil:
		for _, m := range messages { // after an error the writer may still use them
			h.reuse(m)
		}
		return seq, nil
	case errors.As(err, &classified):
		return 0, err
	}
	return 0, fleetscore.Errorf(fleetscore.Unavailable, op, h.cfg.Dir, "%w", err).WithHint("send the readings again; repeated readings count once")
}

// maxSpareBytes is the largest memory of a message that is used again.
const maxSpareBytes = 1 << 20

// buffer is memory for a message, with room for its record's header.
func (h *segmentLog) buffer() []byte {
	if b, ok := h.spare.Get().(*[]byte); ok {
		return (*b)[:recordHeader]
	}
	return make([]byte, recordHeader)
}

// reuse takes the memory of a message that was written.
func (h *segmentLog) reuse(message []byte) {
	if cap(message) <= maxSpareBytes {
		h.spare.Put(&message)
	}
}

// wrote notes how a write ended, and reports when a partition begins to fail or works
// again.
func (h *segmentLog) wrote(p *partition, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was, failed := h.failing[p.index]
	switch {
	case err == nil && !failed:
		return
	case err == nil:
		delete(h.failing, p.index)
		h.slog.Info("hub can be written again", "dir", h.cfg.Dir, "partition", p.index)
	default:
		h.failing[p.index] = err.Error()
		if was == err.Error() {
			return
		}
		h.slog.Error("hub can't be written; each append tries again", "dir", h.cfg.Dir, "partition", p.index, "error", err)
	}
	text := ""
	for i := range h.partitions {
		if why, ok := h.failing[i]; ok {
			text = fmt.Sprintf("readings of %d of %d partitions can't be stored: %s", len(h.failing), len(h.partitions), why)
			break
		}
	}
	h.health.Report("hub", text)
}

// left warns while the disk is nearly full.
func (h *segmentLog) left(bytes uint64) {
	low := bytes < lowBytes
	h.mu.Lock()
	changed := low != h.low
	h.low = low
	h.mu.Unlock()
	switch {
	case changed && low:
		h.slog.Warn("the hub's disk is nearly full", "dir", h.cfg.Dir, "left_mb", bytes>>20)
		h.health.Warn("hub disk", fmt.Sprintf("less than %d MB are left on the disk of %s; below %d MB no readings are accepted: free some space, or lower hub.retention", lowBytes>>20, h.cfg.Dir, reserveBytes>>20))
	case changed:
		h.health.Warn("hub disk", "")
	}
}

// damaged reports messages that are lost.
func (h *segmentLog) damaged(p *partition, d Damage) {
	h.damageText("partition %d: messages %d to %d are lost: %s", p.index, d.First, d.Last, d.Reason)
}

func (h *segmentLog) damageText(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	h.slog.Error("the hub's log is damaged", "dir", h.cfg.Dir, "what", text)
	h.warnings.Damaged(text)
}

// Stats implements Hub.
func (h *segmentLog) Stats(context.Context) ([]Stats, error) {
	select {
	case <-h.done:
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "describe hub", h.cfg.Dir, "%w", errClosed)
	default:
	}
	out := make([]Stats, len(h.partitions))
	for i, p := range h.partitions {
		out[i] = p.stats()
	}
	return out, nil
}

// Reaches implements Hub.
func (h *segmentLog) Reaches(_ context.Context, partition int, epoch int64) (last uint64, ok bool, err error) {
	p, err := h.partition("describe hub", partition)
	if err != nil {
		return 0, false, err
	}
	last, ok = p.reaches(epoch)
	return last, ok, nil
}

// Close implements Hub. It waits for running appends, but only for a limited time, so
// that a disk that hangs can't keep a process from ending.
func (h *segmentLog) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	close(h.done)
	h.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		h.writers.Wait()
		close(ended)
	}()
	defer h.unlock()
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case <-ended:
		return nil
	case <-limit.C:
		return fleetscore.Errorf(fleetscore.Unavailable, "close hub", h.cfg.Dir, "a write has not ended for %s", closeLimit)
	}
}
