package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// maxPartitions bounds the ticks in the hub, which each partition has its own of.
const maxPartitions = 256

// errAnew ends a session whose topic has changed.
var errAnew = errors.New("the topic has more partitions than before")

// session reads the topic over one client, until something goes wrong.
type session struct {
	*Reader
	admin *kadm.Client
	feeds map[int32]*gateway.Feed

	since time.Time     // the brokers have answered without a pause since then; zero while they don't
	asked map[int32]end // of each partition, when it was asked for last

	mu    sync.Mutex      // guards what follows
	begun map[int32]int64 // first offset that wasn't handed to the gateway
	done  map[int32]int64 // first offset that isn't in the hub
}

// end is the offset after a partition's last record at a time.
type end struct {
	offset int64
	at     time.Time
}

// session finds where the topic was read to, and reads on from there.
func (r *Reader) session(ctx context.Context) error {
	opts, err := r.options()
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return r.explain(err)
	}
	defer client.Close()
	s := &session{Reader: r, admin: kadm.NewClient(client), feeds: map[int32]*gateway.Feed{}, asked: map[int32]end{}, begun: map[int32]int64{}, done: map[int32]int64{}}
	from, err := s.open(ctx, client)
	defer s.close()
	if err != nil {
		return r.explain(err)
	}
	reader, err := kgo.NewClient(append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.cfg.Kafka.Topic: from}), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxBytes(fetchBytes), kgo.FetchMaxPartitionBytes(fetchPerPart), kgo.MaxConcurrentFetches(2))...)
	if err != nil {
		return r.explain(err)
	}
	defer reader.Close()
	r.trouble(nil)
	if !r.told {
		r.told = true
		r.log.Info("the topic is read", "partitions", len(from))
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.read(ctx, reader) })
	group.Go(func() error { return s.look(ctx) })
	return r.explain(group.Wait())
}

func (s *session) close() {
	for _, f := range s.feeds {
		f.Close()
	}
}

// open opens a feed for each partition and returns where to read on.
func (s *session) open(ctx context.Context, client *kgo.Client) (map[int32]kgo.Offset, error) {
	ctx, cancel := context.WithTimeout(ctx, 6*askLimit)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		return nil, err
	}
	k := s.cfg.Kafka
	topics, err := s.admin.ListTopics(ctx, k.Topic)
	if err != nil {
		return nil, err
	}
	topic := topics[k.Topic]
	if topic.Err != nil {
		return nil, topic.Err
	}
	partitions := topic.Partitions.Numbers()
	if len(partitions) > maxPartitions {
		return nil, s.fail(fleetscore.Invalid, "read a topic with fewer partitions", "the topic has %d partitions; at most %d can be read", len(partitions), maxPartitions)
	}
	committed, err := s.admin.FetchOffsetsForTopics(ctx, k.Group, k.Topic)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // nothing was committed yet
		return nil, err
	}
	first, err := s.admin.ListStartOffsets(ctx, k.Topic)
	if err != nil {
		return nil, err
	}
	last, err := s.admin.ListCommittedOffsets(ctx, k.Topic)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(first.Error(), last.Error()); err != nil {
		return nil, err
	}
	cfgs, err := s.starts(ctx, partitions, committed, first, last)
	if err != nil {
		return nil, err
	}
	feeds, err := s.deps.Gateway.Feeds(ctx, cfgs)
	if err != nil {
		return nil, err
	}
	from := map[int32]kgo.Offset{}
	s.Reader.mu.Lock()
	s.status.Partitions, s.status.Lag = nil, 0
	s.Reader.mu.Unlock()
	for i, p := range partitions {
		s.feeds[p] = feeds[i]
		begin, _ := first.Lookup(k.Topic, p)
		end, _ := last.Lookup(k.Topic, p)
		at := feeds[i].Start().Offset
		switch {
		case at > end.Offset:
			return from, s.fail(fleetscore.Conflict, "if the topic was deleted and created again, write another name in hub.kafka.group, which reads it from its beginning",
				"partition %d ends at offset %d, but it was read up to %d", p, end.Offset, at)
		case at < begin.Offset:
			s.log.Error("the topic's retention removed records before they were read", "partition", p, "first", at, "last", begin.Offset-1)
			at = begin.Offset
		}
		from[p] = kgo.NewOffset().At(at)
		s.begun[p], s.done[p] = at, at
		s.Reader.mu.Lock()
		s.status.Partitions = append(s.status.Partitions, TopicPartition{Partition: p, Next: at, End: end.Offset})
		s.status.Lag += end.Offset - at
		s.Reader.mu.Unlock()
	}
	return from, nil
}

// starts says where partitions begin of which the hub holds nothing. Those that are new are
// noted in the group before their first reading is in the hub, so that later starts know that the hub may hold some.
func (s *session) starts(ctx context.Context, partitions []int32, committed kadm.OffsetResponses, first, last kadm.ListedOffsets) ([]gateway.FeedConfig, error) {
	k := s.cfg.Kafka
	var cfgs []gateway.FeedConfig
	fresh := kadm.Offsets{}
	for _, p := range partitions {
		c := gateway.FeedConfig{Source: s.source(p)}
		if o, ok := committed.Lookup(k.Topic, p); ok && o.Err != nil {
			return nil, o.Err
		} else if ok && o.At >= 0 {
			c.First.Offset = o.At
		} else {
			begin, _ := first.Lookup(k.Topic, p)
			if k.Start == "latest" {
				begin, _ = last.Lookup(k.Topic, p)
			}
			c.New, c.First.Offset = true, begin.Offset
			fresh.AddOffset(k.Topic, p, begin.Offset, -1)
		}
		cfgs = append(cfgs, c)
	}
	if len(fresh) > 0 {
		if err := s.admin.CommitAllOffsets(ctx, k.Group, fresh); err != nil {
			return nil, err
		}
	}
	return cfgs, nil
}

// read hands what comes to the gateway. It waits until a fetch is stored before it takes the
// next one; the client fetches meanwhile.
func (s *session) read(ctx context.Context, client *kgo.Client) error {
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range fetches.Errors() {
			return e.Err
		}
		var pending []*gateway.Pending
		next := map[int32]int64{}
		var failed error
		fetches.EachPartition(func(t kgo.FetchTopicPartition) {
			for _, c := range s.chunks(t.Records) {
				if failed != nil {
					return
				}
				p, err := s.begin(ctx, t.Partition, c)
				if failed = err; err == nil {
					pending = append(pending, p)
					next[t.Partition] = c.next
				}
			}
		})
		var accepted, rejected int64
		var told gateway.Rejection
		for _, p := range pending { // all of them, because a feed may be closed only after that
			v, err := p.Wait()
			if err != nil && failed == nil {
				failed = err
			}
			accepted, rejected = accepted+int64(v.Accepted), rejected+int64(v.Rejected)
			if len(v.Reasons) > 0 {
				told = v.Reasons[0]
			}
		}
		if rejected > 0 {
			s.log.Warn("readings of the topic were rejected", "readings", rejected, "reason", told.Reason, "column", told.Field)
		}
		s.note(accepted, rejected)
		if failed != nil {
			return failed
		}
		if len(pending) > 0 {
			s.outage.Works(readAgain)
		}
		s.mu.Lock()
		for p, n := range next {
			s.done[p] = n
		}
		s.mu.Unlock()
	}
}

// begin hands a chunk to its feed; while too many readings wait to be aggregated, it waits.
func (s *session) begin(ctx context.Context, partition int32, c chunk) (*gateway.Pending, error) {
	for held := false; ; held = true {
		p, err := s.feeds[partition].Begin(&c.Lines, c.records, c.next, func(list []gateway.Refused) { s.reject(partition, c, list) })
		if fleetscore.Exhausted.Is(err) {
			s.trouble(err)
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(again):
			}
			continue
		}
		if err != nil {
			return p, err
		}
		if held {
			s.trouble(nil)
		}
		s.mu.Lock()
		s.begun[partition] = c.next
		s.mu.Unlock()
		return p, nil
	}
}

// reject keeps records with readings that were rejected.
func (s *session) reject(partition int32, c chunk, list []gateway.Refused) {
	if s.deps.Reject == nil {
		return
	}
	var out []ledger.Rejected
	for _, r := range list {
		out = append(out, ledger.Rejected{Source: fleetscore.SourceKafka, Topic: s.cfg.Kafka.Topic, Reason: r.Why.String(), Text: c.values[r.Record],
			From: fmt.Sprintf("partition %d, offset %d", partition, c.records[r.Record].Offset)})
	}
	s.deps.Reject(out...)
}

func (s *session) note(accepted, rejected int64) {
	s.Reader.mu.Lock()
	defer s.Reader.mu.Unlock()
	s.status.Accepted += accepted
	s.status.Rejected += rejected
}

// commitEvery is how often the group learns how far the hub has come.
const commitEvery = 5 * time.Second

// look asks the brokers for the topic's end. Partitions that were read up to there are
// silent, which their feeds are told. While the brokers don't answer, no time passes for them.
func (s *session) look(ctx context.Context) error {
	ticker := time.NewTicker(min(max(s.cfg.Hub.IdleAfter.D()/4, 50*time.Millisecond), commitEvery))
	defer ticker.Stop()
	committed := map[int32]int64{}
	var when time.Time
	trouble := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		err := s.ends(ctx)
		if errors.Is(err, errAnew) {
			return err
		}
		if err != nil {
			s.since = time.Time{}
		}
		if err == nil && s.deps.Now().Sub(when) > commitEvery {
			when = s.deps.Now()
			err = s.commit(ctx, committed)
		}
		if ctx.Err() == nil && (err != nil || trouble) {
			s.trouble(s.explain(err))
			trouble = err != nil
		}
	}
}

// ends asks for the ends of all partitions.
func (s *session) ends(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	k, at := s.cfg.Kafka, s.deps.Now()
	s.mu.Lock() // what was handed over before the question
	begun := make(map[int32]int64, len(s.begun))
	for p, n := range s.begun {
		begun[p] = n
	}
	done := make(map[int32]int64, len(s.done))
	for p, n := range s.done {
		done[p] = n
	}
	s.mu.Unlock()
	ends, err := s.admin.ListCommittedOffsets(ctx, k.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	if len(ends[k.Topic]) > len(s.feeds) {
		return errAnew
	}
	if now := s.deps.Now(); s.since.IsZero() || now.Sub(at) > s.cfg.Hub.IdleAfter.D()/4 { // the question may have waited for brokers that were away
		s.since = now
	}
	status := make([]TopicPartition, 0, len(s.feeds))
	lag := int64(0)
	for p, f := range s.feeds {
		last, ok := ends.Lookup(k.Topic, p)
		if !ok {
			continue
		}
		switch before, known := s.asked[p]; {
		case begun[p] >= last.Offset:
			f.Caught(s.since, at)
		case known && begun[p] >= before.offset: // a topic that is written to always has new records
			f.Caught(s.since, before.at)
		}
		s.asked[p] = end{last.Offset, at}
		status = append(status, TopicPartition{p, done[p], max(last.Offset, done[p])})
		lag += max(0, last.Offset-done[p])
	}
	slices.SortFunc(status, func(a, b TopicPartition) int { return int(a.Partition - b.Partition) })
	s.Reader.mu.Lock()
	defer s.Reader.mu.Unlock()
	s.status.Partitions, s.status.Lag = status, lag
	return nil
}

// commit tells the group what the hub holds.
func (s *session) commit(ctx context.Context, committed map[int32]int64) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	offsets := kadm.Offsets{}
	s.mu.Lock()
	for p, n := range s.done {
		if old, ok := committed[p]; !ok || n > old {
			offsets.AddOffset(s.cfg.Kafka.Topic, p, n, -1)
			committed[p] = n
		}
	}
	s.mu.Unlock()
	if len(offsets) == 0 {
		return nil
	}
	return s.admin.CommitAllOffsets(ctx, s.cfg.Kafka.Group, offsets)
}
