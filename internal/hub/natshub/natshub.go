// Package natshub keeps a hub's log on NATS servers, so that several servers of
// Fleetscore share it and a cluster keeps more than one copy of it.
//
// Each partition is a JetStream stream, and each of its messages is a message of the hub
// in the format of package hub. The stream numbers the messages, so its sequences are the
// hub's. A message's subject names the opening that wrote it (its epoch). An append is
// answered after JetStream acknowledged it, which a cluster does once a majority of the
// stream's servers holds the message. A publish without an answer is repeated with the
// same message id, by which JetStream recognises the repeat.
//
// Streams never remove messages by themselves: this package removes those that are older
// than the retention, or the oldest if there are more than its size allows, and that are no longer needed. It doesn't start or configure NATS servers;
// docs/nats.md says what they need.
//
// A hub may be used concurrently, and by several processes at once. Its goroutines end
// with Close.
package natshub

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// Config says which streams a hub uses. All fields but Partitions, Replicas, Retention,
// Size and MaxBytes are texts, so that two configurations can be compared.
type Config struct {
	URL        string        // the servers' addresses with commas between them: nats://a:4222,nats://b:4222
	Name       string        // the streams are Name-000, Name-001, …; "" means fleetscore
	Partitions int           // 0 means 1; at most 256; fixed once readings are stored
	Replicas   int           // how many servers hold each message; 0 means 3
	Retention  time.Duration // age at which unneeded messages are removed; 0 means 7 days
	Size       int64         // bytes of all streams together, beyond which the oldest unneeded messages are removed; 0 means no limit
	MaxBytes   int64         // of each stream, beyond which appends are refused; 0 means no limit

	Credentials string // file with a user's credentials; see docs/nats.md; "" means none
	CA          string // file with the certificates that sign the servers'; "" means the system's
	Certificate string // file with this client's certificate, and Key the file with its key; "" means none
	Key         string
}

const (
	defaultName      = "fleetscore"
	defaultReplicas  = 3
	defaultRetention = 7 * 24 * time.Hour

	apiLimit    = 5 * time.Second  // for a question to JetStream
	answerLimit = 10 * time.Second // for an append, with all its repeats
	silentLimit = 3 * time.Second  // without any answer, after which unanswered messages are published again
	probeLimit  = time.Second      // for a server to show that it isn't frozen
	closeLimit  = 10 * time.Second
	maxDamage   = 1000 // damaged messages that are remembered
)

func (c Config) defaults() Config {
	if c.Name == "" {
		c.Name = defaultName
	}
	if c.Partitions == 0 {
		c.Partitions = 1
	}
	if c.Replicas == 0 {
		c.Replicas = defaultReplicas
	}
	if c.Retention == 0 {
		c.Retention = defaultRetention
	}
	return c
}

func (c Config) validate() error {
	if c.URL == "" || c.Partitions < 1 || c.Partitions > fleetscore.Shards || c.Retention < time.Second || c.Replicas < 1 || c.Replicas > 5 || c.Size < 0 || c.MaxBytes < 0 {
		return fleetscore.Errorf(fleetscore.Invalid, opOpen, c.Name, "%d partitions with %d replicas and a retention of %v are not possible", c.Partitions, c.Replicas, c.Retention).
			WithHint("name the address of a server, 1 to %d partitions, 1 to 5 replicas and a retention of a second or more", fleetscore.Shards)
	}
	return nil
}

const opOpen = "open hub"

// log is a hub.Hub on NATS.
type log struct {
	cfg     Config
	slog    *slog.Logger
	health  hub.Health
	trouble func() hub.Trouble
	now     func() time.Time
	needed  func(partition int) uint64 // nil: this process removes nothing

	conn       *nats.Conn
	js         jetstream.JetStream
	hub        atomic.Int64
	fresh      atomic.Bool // it is being opened, and was made by this process or at the same time by another one
	partitions []*partition
	maxBytes   int             // of an encoded message
	ctx        context.Context // ends with Close
	stop       context.CancelFunc
	background sync.WaitGroup
	warnings   *hub.Warnings

	mu      sync.Mutex     // guards what follows
	failing map[int]string // partitions whose last append failed, and why
	lost    string         // why there is no connection; empty while there is one
	since   time.Time      // of lost
	refusal string         // the servers' last refusal of an operation
}

// Open connects to the servers and opens the hub that their streams hold, or makes the
// streams. Deps.Needed says what the queries of this process still need. If it is nil,
// this process removes no messages; another one must.
//
// Errors: Unavailable if no server answers, Conflict if the streams belong to a hub with
// another number of partitions that holds readings, Invalid if the servers don't have
// what a hub needs.
func Open(ctx context.Context, cfg Config, deps hub.Deps) (hub.Hub, error) {
	cfg = cfg.defaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	deps = deps.Defaults()
	l := &log{cfg: cfg, slog: deps.Log, health: deps.Health, trouble: deps.Trouble, now: deps.Now, needed: deps.Needed, warnings: hub.NewWarnings(deps.Health), failing: map[int]string{}}
	l.ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	for i := range cfg.Partitions {
		l.partitions = append(l.partitions, newPartition(l, i))
	}
	if err := l.connect(); err != nil {
		l.stop()
		return nil, err
	}
	if err := l.openStreams(ctx); err != nil {
		_ = l.Close() // nothing was appended
		return nil, err
	}
	if l.needed != nil {
		l.background.Go(l.trim)
	}
	return l, nil
}

// newID returns a random identifier above 0.
func newID() int64 { return rand.Int64N(1<<63-1) + 1 }

// ID implements hub.Hub. It changes only if another process made all streams anew.
func (l *log) ID() int64 { return l.hub.Load() }

// Partitions implements hub.Hub.
func (l *log) Partitions() int { return l.cfg.Partitions }

func (l *log) partition(op string, i int) (*partition, error) {
	if i < 0 || i >= l.cfg.Partitions {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, l.cfg.Name, "partition %d of %d doesn't exist", i, l.cfg.Partitions)
	}
	return l.partitions[i], nil
}

// closed reports whether Close was called.
func (l *log) closed() bool { return l.ctx.Err() != nil }

func (l *log) errClosed(op string) error {
	return fleetscore.Errorf(fleetscore.Unavailable, op, l.cfg.Name, "the hub is closed")
}

// Stats implements hub.Hub.
func (l *log) Stats(ctx context.Context) ([]hub.Stats, error) {
	const op = "describe hub"
	if l.closed() {
		return nil, l.errClosed(op)
	}
	out := make([]hub.Stats, len(l.partitions))
	for i, p := range l.partitions {
		info, err := p.info(ctx)
		if err != nil {
			return nil, l.failure(op, p.stream, err)
		}
		s := info.State
		out[i] = hub.Stats{Partition: i, First: s.FirstSeq, Last: s.LastSeq, Messages: s.Msgs, SizeBytes: s.Bytes, Damage: append(damage(s.Deleted), p.unreadable()...)}
		out[i].OverdueBytes = l.warnings.OverdueOf(i)
		if s.Msgs == 0 {
			out[i].First = s.LastSeq + 1
		} else {
			out[i].Oldest = fleetscore.MicrosOf(s.FirstTime)
		}
		for _, d := range p.unreadable() {
			if d.First >= out[i].First {
				out[i].Messages--
			}
		}
	}
	return out, nil
}

// damage turns the sequences of messages that somebody deleted into ranges.
func damage(deleted []uint64) (out []hub.Damage) {
	for _, seq := range deleted {
		if n := len(out); n > 0 && out[n-1].Last+1 == seq {
			out[n-1].Last = seq
		} else {
			out = append(out, hub.Damage{First: seq, Last: seq, Reason: "somebody deleted them from the stream"})
		}
	}
	return out
}

// Reaches implements hub.Hub.
func (l *log) Reaches(ctx context.Context, partition int, epoch int64) (last uint64, ok bool, err error) {
	const op = "describe hub"
	p, err := l.partition(op, partition)
	if err != nil {
		return 0, false, err
	}
	if l.closed() {
		return 0, false, l.errClosed(op)
	}
	return p.reaches(ctx, epoch)
}

// Close implements hub.Hub.
func (l *log) Close() error {
	if l.closed() {
		return nil
	}
	l.stop()
	l.background.Wait()
	ended := make(chan struct{})
	l.conn.SetClosedHandler(func(*nats.Conn) { close(ended) })
	l.conn.Close()
	select {
	case <-ended:
	case <-time.After(closeLimit): // nothing is lost: every append that was answered is stored
	}
	l.health.Report("hub", "")
	return nil
}

// problem reports something wrong with the log that a person should know.
func (l *log) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.slog.Error("the hub's log is damaged", "hub", l.cfg.Name, "what", text)
	l.warnings.Damaged(text)
}
