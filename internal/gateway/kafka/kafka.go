// Package kafka takes readings from a topic of Kafka, or of a service that speaks its
// protocol, and hands them to the gateway.
//
// Each partition of the topic is a source of its own in the hub, with its own watermark and
// position, so a partition that is read late holds the watermark back instead of making
// its readings late. The position in the hub's messages says where to go on; offsets that are committed to
// the consumer group are for people who look at the group's lag, and say where a partition
// begins of which the hub holds nothing.
//
// The protocol is franz-go's. The broker assigns no partitions: one server reads all of
// them. docs/kafka.md describes all of it. Run owns all goroutines.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
)

// Config says which topic is read, and what readings look like.
type Config struct {
	Kafka fleetscore.KafkaConfig // with all defaults
	Hub   fleetscore.HubConfig   // Key, Time and IdleAfter are used
}

// Deps is what a Reader works with.
type Deps struct {
	Gateway *gateway.Gateway
	// Reject keeps records with readings that were rejected. It returns once they are kept; nil keeps none.
	Reject  func(...ledger.Rejected)
	Now     func() time.Time      // of the gateway's clock
	Report  func(why string)      // why nothing is taken; empty if all is well
	Log     *slog.Logger          // nil discards
	Metrics prometheus.Registerer // nil means none
}

// Reader reads one topic.
type Reader struct {
	cfg  Config
	deps Deps
	log  *slog.Logger

	// Used by Run and the reading of its session alone.
	outage lifecycle.Trouble
	told   bool // the log says that the topic is read

	mu     sync.Mutex // guards what follows
	status Topic
}

// State is how a topic is read.
type State string

// The states, in life order.
const (
	Connecting State = "connecting"
	Reading    State = "reading"
	Waiting    State = "waiting" // what is wrong is tried again by itself
)

// Topic is how far a topic has been read.
type Topic struct {
	Topic      string           `json:"topic"`
	Group      string           `json:"group"`
	State      State            `json:"state" enum:"connecting,reading,waiting" doc:"connecting: the positions are being looked up; reading; waiting: the problem says why, and the server tries again by itself"`
	Problem    string           `json:"problem,omitempty"`
	Lag        int64            `json:"lag" doc:"records that are in the topic and not in the hub yet, when the brokers were last asked"`
	Accepted   int64            `json:"accepted" doc:"readings taken since the server's start"`
	Rejected   int64            `json:"rejected" doc:"readings refused since the server's start"`
	Partitions []TopicPartition `json:"partitions"`
}

// TopicPartition is how far one partition of a topic has been read.
type TopicPartition struct {
	Partition int32 `json:"partition"`
	Next      int64 `json:"next" doc:"offset of the first record that isn't in the hub"`
	End       int64 `json:"end" doc:"offset that the next record will get, when the brokers were last asked"`
}

// New builds a reader. It connects once Run runs.
func New(cfg Config, deps Deps) (*Reader, error) {
	r := &Reader{cfg: cfg, deps: deps, log: deps.Log, status: Topic{Topic: cfg.Kafka.Topic, Group: cfg.Kafka.Group, State: Connecting}}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.deps.Report == nil {
		r.deps.Report = func(string) {}
	}
	r.log = r.log.With("topic", cfg.Kafka.Topic, "group", cfg.Kafka.Group)
	r.outage = new(lifecycle.Outages).Trouble(r.log)
	if deps.Metrics == nil {
		return r, nil
	}
	return r, deps.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fleetscore_gateway_kafka_lag_records", Help: "Records of a Kafka topic that are not in the hub yet.",
		ConstLabels: prometheus.Labels{"topic": cfg.Kafka.Topic, "group": cfg.Kafka.Group}}, func() float64 { return float64(r.Status().Lag) }))
}

// Status says how far the topic has been read.
func (r *Reader) Status() Topic {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Partitions = slices.Clone(s.Partitions)
	return s
}

// readAgain ends an outage: records were stored, or a session lasted, as that of a silent topic does. To have
// opened a session isn't enough, because the hub may refuse what it brings.
const readAgain = "the topic is read again"

// again is the pause before a topic is tried again; it grows up to againMax.
const (
	again    = time.Second
	againMax = 15 * time.Second
)

// Run reads the topic until ctx ends. Whatever goes wrong is reported and tried again.
func (r *Reader) Run(ctx context.Context) error {
	defer r.deps.Report("")
	pause := again
	for ctx.Err() == nil {
		began := r.deps.Now()
		err := r.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if r.deps.Now().Sub(began) > againMax {
			pause = again
			r.outage.Works(readAgain)
		}
		if errors.Is(err, errAnew) {
			r.log.Info("the topic has more partitions than before")
			pause = 0
		} else {
			r.trouble(err)
			r.outage.Failed(slog.LevelWarn, "the topic can't be read, which is tried again", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(max(2*pause, again), againMax)
	}
	return nil
}

// trouble reports why readings don't come in; nil says that they do.
func (r *Reader) trouble(err error) {
	why, state := "", Reading
	if err != nil {
		why, state = err.Error(), Waiting
	}
	r.mu.Lock()
	r.status.State, r.status.Problem = state, why
	r.mu.Unlock()
	r.deps.Report(why)
}

// source is the name of a partition of the topic in the hub. With another group it is
// another source, which begins anew.
func (r *Reader) source(partition int32) fleetscore.Source {
	name := r.cfg.Kafka.Group + "/" + r.cfg.Kafka.Topic
	if len(name) > 40 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(name)) // never fails
		name = fmt.Sprintf("%.20s%016x", r.cfg.Kafka.Topic, h.Sum64())
	}
	return fleetscore.Source(fmt.Sprintf("kafka/%s/%d", name, partition))
}
