// Package gateway takes readings from their sources and puts them into the hub.
//
// Take is the only way in: its input is a source and bytes, its output verdicts.
// ServeHTTP offers Take over HTTP. Readings are parsed into columns in the caller's
// goroutine. One committer per partition takes all waiting readings, appends them as
// one message and then answers all waiting requests. An answer without an error means
// that the readings are synced to disk. All requests that arrive during a sync share
// the next one. Every line gets a verdict: good lines are stored, bad lines come back
// with the reason. While nothing arrives from a source in a partition, the committer
// appends ticks of that source. Ticks tell readers that the source is silent and the
// gateway works.
//
// If several servers append to one hub, each server's share of a source is a source of its
// own in the log: a gateway knows nothing of the readings that come to another one, and
// its ticks must not speak for them.
//
// The gateway does not interpret readings: the aggregator finds late readings and
// repeats. docs/http-readings.md describes the endpoint.
//
// A Gateway is safe for concurrent use; Run owns all its goroutines.
package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
)

// Config says what readings look like and how much the gateway takes.
type Config struct {
	Hub           fleetscore.HubConfig // Key, Time and IdleAfter are used; zero fields get their documented defaults
	Name          string               // of the hub in the request's path; "" means "hub"
	Sources       []fleetscore.Source  // the sources whose readings are taken; nil means HTTP alone
	Server        string               // the name of this server, if several append to the hub; each keeps its name when it starts again
	MaxBodyBytes  int64                // of one request, after decompression; 0 means 16 MiB
	MaxQueueBytes int64                // memory of all bodies at once; beyond it requests get 503; 0 means 256 MiB
	BodyTimeout   time.Duration        // for a body to arrive; 0 means 30 s
	Numbers       []string             // columns that queries calculate with: a text in such a column is refused
	Longest       time.Duration        // longest window of the queries; tells which readings are late for all queries; 0 means a day
	MaxFuture     time.Duration        // how far a reading's time may lie ahead of its arrival; 0 means 5 min; negative means any
}

// Defaults fills the fields that are zero.
func (c Config) Defaults() Config {
	if len(c.Hub.Key) == 0 {
		c.Hub.Key = []string{"Device", "Tag"}
	}
	if c.Hub.Time == "" {
		c.Hub.Time = "TS"
	}
	if c.Hub.IdleAfter == 0 {
		c.Hub.IdleAfter = fleetscore.Duration(10 * time.Second)
	}
	if c.Name == "" {
		c.Name = "hub"
	}
	if len(c.Sources) == 0 {
		c.Sources = []fleetscore.Source{fleetscore.SourceHTTP}
	}
	if c.MaxBodyBytes == 0 {
		c.MaxBodyBytes = 16 << 20
	}
	if c.MaxQueueBytes == 0 {
		c.MaxQueueBytes = 256 << 20
	}
	if c.BodyTimeout == 0 {
		c.BodyTimeout = 30 * time.Second
	}
	if c.Longest == 0 {
		c.Longest = 24 * time.Hour
	}
	if c.MaxFuture == 0 {
		c.MaxFuture = 5 * time.Minute
	}
	return c
}

// maxBodyBytes bounds what MaxBodyBytes may be.
const maxBodyBytes = 1 << 30

// Validate judges a configuration that was filled.
func (c Config) Validate() error {
	fail := func(format string, args ...any) error {
		return fleetscore.Errorf(fleetscore.Invalid, "configure gateway", c.Name, format, args...)
	}
	seen := map[string]bool{c.Hub.Time: true, IDField: true}
	for _, k := range c.Hub.Key {
		if k == "" || seen[k] {
			return fail("key column %q is empty or has another role", k)
		}
		seen[k] = true
	}
	for i, s := range c.Sources {
		if !s.Valid() || !s.At(c.Server).Valid() || slices.Contains(c.Sources[:i], s) {
			return fail("the source %q has no name, a name that is too long, or is listed twice", s)
		}
	}
	if _, ok := timeUnits[c.Hub.TimeUnit]; !ok {
		return fail("the unit %q of times is unknown", c.Hub.TimeUnit)
	}
	switch {
	case c.Hub.OwnKey != "" && !slices.Contains(c.Hub.Key, c.Hub.OwnKey):
		return fail("own_key %q is not a key column", c.Hub.OwnKey)
	case c.Hub.Time == IDField:
		return fail("the time column can't be %q", IDField)
	case c.Hub.IdleAfter < 0 || c.BodyTimeout < 0:
		return fail("a duration is negative")
	case c.MaxBodyBytes < 1 || c.MaxBodyBytes > maxBodyBytes || c.MaxQueueBytes < 2*c.MaxBodyBytes:
		return fail("a limit of %d bytes for a body and %d for all", c.MaxBodyBytes, c.MaxQueueBytes)
	}
	return nil
}

// Deps is what a gateway works with.
type Deps struct {
	Hub   hub.Hub
	Log   *slog.Logger // nil discards
	Clock *clock.Clock // the time that arrivals get; nil is the system's
	// Full says why no more readings can be taken for now, or is empty. Readings are
	// refused while too many wait to be aggregated. Nil never refuses.
	Full func() string
	// Owner is the name of the device that sends a request; empty if the sender is no device.
	// Nil knows none. Hub.OwnKey says what the name is for.
	Owner   func(context.Context) string
	Metrics prometheus.Registerer // nil means none
}

// Gateway takes one hub's readings.
type Gateway struct {
	cfg     Config
	hub     hub.Hub
	log     *slog.Logger
	clock   *clock.Clock
	now     func() time.Time // of the clock
	full    func() string
	owner   func(context.Context) string
	metrics *metrics
	rates   map[Way]*rate     // of all ways
	outages lifecycle.Outages // of the hub

	partition  [fleetscore.Shards]int // of each shard
	shared     *shared
	parsers    chan *parser // one per processor, because parsing only computes
	intake     *intake      // of bodies being received or waiting
	parsing    parsing      // requests between the end of their body and their queues
	committers []*committer
}

// New builds a gateway; Run must be running for requests to be answered.
func New(cfg Config, deps Deps) (*Gateway, error) {
	cfg = cfg.Defaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, hub: deps.Hub, log: deps.Log, clock: deps.Clock, now: deps.Clock.Now, full: deps.Full, owner: deps.Owner, intake: newIntake(cfg.MaxQueueBytes), rates: map[Way]*rate{}}
	for _, w := range Ways {
		g.rates[w] = &rate{}
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.full == nil {
		g.full = func() string { return "" }
	}
	var err error
	if g.metrics, err = newMetrics(deps.Metrics, func() float64 { return float64(g.intake.used.Load()) }); err != nil {
		return nil, err
	}
	for i, r := range fleetscore.SplitShards(g.hub.Partitions()) {
		for s := int(r.First); s <= int(r.Last); s++ {
			g.partition[s] = i
		}
		g.committers = append(g.committers, newCommitter(g, i))
	}
	g.shared = newShared(&g.partition, len(g.committers))
	g.parsers = make(chan *parser, runtime.GOMAXPROCS(0))
	for range cap(g.parsers) {
		g.parsers <- newParser(cfg, g.shared)
	}
	return g, nil
}

// Run commits what arrives, and ticks, until ctx ends. Then it refuses new
// readings, commits those that wait and returns.
func (g *Gateway) Run(ctx context.Context) error {
	var group errgroup.Group
	for _, c := range g.committers {
		group.Go(func() error {
			c.run(ctx)
			return nil
		})
	}
	return group.Wait()
}

var _ http.Handler = (*Gateway)(nil)
