package natshub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// The metadata of a stream.
const (
	metaHub        = "fleetscore-hub"        // the hub's id, hexadecimal
	metaPartitions = "fleetscore-partitions" // how many partitions the hub has
)

// duplicates is how long JetStream recognises a message id. It is longer than an append
// lasts with all its repeats.
const duplicates = 2 * time.Minute

// partition is one partition: a stream, and what this process knows of it.
type partition struct {
	log    *log
	index  int
	stream string
	prefix string // of the subjects; the epoch follows

	order chan struct{} // cap 1: held while messages are published, so that an append's messages follow each other

	mu    sync.Mutex   // guards what follows
	epoch int64        // of what is published now
	bad   []hub.Damage // messages that were found to be damaged
	seen  uint64       // the highest sequence that was acknowledged to this process or read by it
}

func newPartition(l *log, i int) *partition {
	name := fmt.Sprintf("%s-%03d", l.cfg.Name, i)
	return &partition{log: l, index: i, stream: name, prefix: fmt.Sprintf("%s.%03d.", l.cfg.Name, i), order: make(chan struct{}, 1), epoch: newID()}
}

// renew begins another epoch. It is called whenever the stream may have been replaced
// unnoticed: after a failed append and when the connection was lost. So what was
// published before and after lies in different epochs.
func (p *partition) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch = newID()
}

// noteSeen notes that a message is in the stream.
func (p *partition) noteSeen(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = max(p.seen, seq)
}

// damaged notes a message that can't be read. Each is noted once.
func (p *partition) damaged(seq uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.bad {
		if d.First == seq {
			return
		}
	}
	if len(p.bad) < maxDamage {
		p.bad = append(p.bad, hub.Damage{First: seq, Last: seq, Reason: err.Error()})
	}
	p.log.problem("partition %d: message %d is lost: %v", p.index, seq, err)
}

// unreadable returns the messages that were found to be damaged.
func (p *partition) unreadable() []hub.Damage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.bad)
}

func (p *partition) subject(epoch int64) string { return fmt.Sprintf("%s%016x", p.prefix, epoch) }

// epochOf is the opening that wrote a message; 0 if the subject doesn't say.
func (p *partition) epochOf(subject string) int64 {
	n, err := strconv.ParseInt(strings.TrimPrefix(subject, p.prefix), 16, 64)
	if err != nil {
		return 0
	}
	return n
}

// info asks the stream for its state.
func (p *partition) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	s, err := p.log.js.Stream(ctx, p.stream)
	if err != nil {
		return nil, err
	}
	info := s.CachedInfo()
	if info.State.NumDeleted > 0 {
		return s.Info(ctx, jetstream.WithDeletedDetails(true))
	}
	return info, nil
}

// leaderLimit is how recently a majority must have answered a stream's leader for its
// word to count. NATS elects another leader no sooner than four seconds after the
// majority heard the last of this one.
const leaderLimit = 3 * time.Second

// reaches finds the last message of an epoch. A leader that was cut off from the others
// may not know the latest messages, so its answer counts only while a majority follows it.
func (p *partition) reaches(ctx context.Context, epoch int64) (uint64, bool, error) {
	const op = "describe hub"
	ctx, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	s, err := p.log.js.Stream(ctx, p.stream)
	if err != nil {
		return 0, false, p.log.failure(op, p.stream, err)
	}
	m, err := s.GetLastMsgForSubject(ctx, p.subject(epoch))
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, false, p.log.failure(op, p.stream, err)
	}
	info, e := s.Info(ctx)
	if e == nil {
		e = followed(info)
	}
	if e != nil {
		return 0, false, p.log.failure(op, p.stream, e)
	}
	if err != nil {
		return 0, false, nil
	}
	return m.Sequence, true, nil
}

// followed refuses the word of a leader that a majority doesn't follow at the moment.
func followed(info *jetstream.StreamInfo) error {
	if info.Config.Replicas < 2 || info.Cluster == nil {
		return nil
	}
	active := 1
	for _, peer := range info.Cluster.Replicas {
		if !peer.Offline && peer.Active < leaderLimit {
			active++
		}
	}
	if active <= info.Config.Replicas/2 {
		return fmt.Errorf("only %d of %d servers of the stream follow its leader", active, info.Config.Replicas)
	}
	return nil
}

// identity is the hub that a stream belongs to; 0 if it belongs to none.
func identity(info *jetstream.StreamInfo) (id int64, partitions int) {
	id, _ = strconv.ParseInt(info.Config.Metadata[metaHub], 16, 64)    // 0 says that there is none
	partitions, _ = strconv.Atoi(info.Config.Metadata[metaPartitions]) // the same
	return id, partitions
}

// openStreams finds out which hub the streams hold, and makes those that are missing.
func (l *log) openStreams(ctx context.Context) error {
	have := 0
	for i := range fleetscore.Shards {
		p := newPartition(l, i)
		info, err := p.info(ctx)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			if i >= max(l.cfg.Partitions, have) {
				break
			}
			continue
		} else if err != nil {
			return l.failure(opOpen, p.stream, err)
		}
		id, n := identity(info)
		if id == 0 {
			return fleetscore.Errorf(fleetscore.Conflict, opOpen, p.stream, "a stream of this name exists and belongs to something else").
				WithHint("choose another name in hub.nats.name")
		}
		have = max(have, n)
		if l.hub.Load() == 0 {
			l.hub.Store(id)
		}
		if n != l.cfg.Partitions && info.State.LastSeq > 0 {
			return fleetscore.Errorf(fleetscore.Conflict, opOpen, l.cfg.Name, "the hub holds readings in %s, not %d", fleetscore.Counted(n, "partition"), l.cfg.Partitions).
				WithHint("set hub.partitions back to %d, or choose another hub.nats.name; readings that are not yet in a dataset must then be sent again", n)
		}
	}
	for i := l.cfg.Partitions; i < have; i++ { // empty
		if err := l.js.DeleteStream(ctx, newPartition(l, i).stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return l.failure(opOpen, l.cfg.Name, err)
		}
	}
	if l.hub.Load() == 0 {
		l.hub.Store(newID())
		l.fresh.Store(true)
		defer l.fresh.Store(false)
	}
	for _, p := range l.partitions {
		if err := p.ensure(ctx); err != nil {
			return l.failure(opOpen, p.stream, err)
		}
	}
	return nil
}

// want is the stream's configuration, based on the one that it has.
func (p *partition) want(c jetstream.StreamConfig) jetstream.StreamConfig {
	cfg := p.log.cfg
	c.Name, c.Subjects, c.Description = p.stream, []string{p.prefix + "*"}, "readings of a Fleetscore hub, which removes them itself"
	c.AllowDirect = false // any copy could answer, also one that lags behind
	c.Storage, c.Retention, c.Discard, c.Replicas, c.Duplicates = jetstream.FileStorage, jetstream.LimitsPolicy, jetstream.DiscardNew, cfg.Replicas, duplicates
	c.MaxMsgs, c.MaxBytes, c.MaxAge, c.MaxMsgsPerSubject, c.MaxMsgSize, c.MaxConsumers = -1, -1, 0, -1, -1, -1
	if cfg.MaxBytes > 0 {
		c.MaxBytes = cfg.MaxBytes
	}
	meta := maps.Clone(c.Metadata)
	if meta == nil {
		meta = map[string]string{}
	}
	meta[metaHub], meta[metaPartitions] = fmt.Sprintf("%016x", p.log.hub.Load()), strconv.Itoa(cfg.Partitions)
	c.Metadata = meta
	return c
}

// ensure makes the stream if it doesn't exist, and gives it the settings that a hub
// needs. A stream that was deleted while this process knew it begins after the last
// message that was in it, so that no sequence is used for two messages.
func (p *partition) ensure(ctx context.Context) error {
	l := p.log
	for try := 0; ; try++ {
		info, err := p.info(ctx)
		switch {
		case err == nil:
			return p.adopt(ctx, info)
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return err
		}
		p.mu.Lock()
		seen := p.seen
		p.mu.Unlock()
		c := p.want(jetstream.StreamConfig{})
		if seen > 0 {
			c.FirstSeq = seen + 1
		}
		_, err = l.js.CreateStream(ctx, c)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) && try == 0 { // another process was faster
			continue
		}
		if err == nil && seen > 0 {
			p.renew()
			l.problem("partition %d: the stream %s was deleted with all its messages, up to message %d; it is made anew", p.index, p.stream, seen)
		}
		return err
	}
}

// adopt compares a stream that exists with what the hub knows and needs.
func (p *partition) adopt(ctx context.Context, info *jetstream.StreamInfo) error {
	l := p.log
	id, _ := identity(info)
	if have := l.hub.Load(); id != have && id != 0 && l.hub.CompareAndSwap(have, id) {
		for _, q := range l.partitions {
			q.mu.Lock()
			q.seen, q.epoch = 0, newID()
			q.mu.Unlock()
		}
		if !l.fresh.Load() { // else two processes make the hub at the same time, and the other one was first
			l.problem("the streams %s-… were deleted, and made anew by another process", l.cfg.Name)
		}
	}
	if want := p.want(info.Config); !same(want, info.Config) {
		if _, err := l.js.UpdateStream(ctx, want); err != nil {
			return err
		}
		l.slog.Info("the stream's settings were changed to what the hub needs", "stream", p.stream, "replicas", want.Replicas)
	}
	return nil
}

// same reports whether the settings that want sets are equal.
func same(a, b jetstream.StreamConfig) bool {
	return len(b.Subjects) == 1 && a.Subjects[0] == b.Subjects[0] && a.Description == b.Description && a.Storage == b.Storage && a.Retention == b.Retention &&
		a.Discard == b.Discard && a.AllowDirect == b.AllowDirect && a.Replicas == b.Replicas && a.Duplicates == b.Duplicates && a.MaxMsgs == b.MaxMsgs && a.MaxBytes == b.MaxBytes &&
		a.MaxAge == b.MaxAge && a.MaxMsgsPerSubject == b.MaxMsgsPerSubject && a.MaxMsgSize == b.MaxMsgSize && a.MaxConsumers == b.MaxConsumers && a.Metadata[metaHub] == b.Metadata[metaHub] && a.Metadata[metaPartitions] == b.Metadata[metaPartitions]
}
