package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/aggregator/archive"
	"github.com/fleetscore/fleetscore/internal/aggregator/reference"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/gateway/kafka"
	"github.com/fleetscore/fleetscore/internal/gateway/rejected"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// streams is the stream path: the hub, the gateway in front of it and one
// aggregator per query behind it. It begins once a configuration was applied, because
// the configuration says how readings look, and it rebuilds gateway and aggregators when
// the configuration of hub or queries changes. All methods are safe for concurrent use.
type streams struct {
	server *Server

	keeper *rejected.Keeper // of messages that were rejected
	leads  turn             // of the queries: while this server leads

	replaying chan struct{} // holds a value during a replay
	listing   chan struct{} // holds a value while keys of the log are listed

	mu          sync.Mutex // guards the fields below
	hub         hub.Hub
	gateway     *gateway.Gateway
	cfg         fleetscore.HubConfig // of the gateway
	topics      []*kafka.Reader
	aggregators []*aggregator.Aggregator
	why         string           // why there is no gateway, if it isn't for want of a configuration
	querying    bool             // the aggregators are those of the configuration in force
	archive     *archive.Archive // that runs with them; nil if none is wanted
}

// turn is the time in which something may run that others may do at other times.
type turn struct {
	mu      sync.Mutex // guards what follows
	begun   chan struct{}
	term    context.Context // nil while it is the turn of others
	running sync.WaitGroup
}

// give lets what waits run until ctx ends, and returns when it has ended.
func (t *turn) give(ctx context.Context) error {
	t.mu.Lock()
	t.term = ctx
	if t.begun != nil {
		close(t.begun)
		t.begun = nil
	}
	t.mu.Unlock()
	<-ctx.Done()
	t.mu.Lock()
	t.term = nil
	t.mu.Unlock()
	t.running.Wait()
	return ctx.Err()
}

// take runs f in each turn until ctx ends or f fails; f ends when the turn does.
func (t *turn) take(ctx context.Context, f func(context.Context) error) error {
	for {
		t.mu.Lock()
		term := t.term
		if term != nil {
			t.running.Add(1)
		} else if t.begun == nil {
			t.begun = make(chan struct{})
		}
		begun := t.begun
		t.mu.Unlock()
		if term == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-begun:
			}
			continue
		}
		both, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(term, cancel)
		err := f(both)
		stop()
		cancel()
		t.running.Done()
		if ctx.Err() != nil || term.Err() == nil {
			return err
		}
	}
}

// on reports whether it is the turn.
func (t *turn) on() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.term != nil
}

// lead lets the queries run until ctx ends.
func (s *streams) lead(ctx context.Context) error { return s.leads.give(ctx) }

// ServeHTTP hands readings to the gateway, if there is one yet.
func (s *streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.serve((*gateway.Gateway).ServeHTTP)(w, r)
}

// status is the aggregators' state, one entry per query.
func (s *streams) status() []aggregator.Status {
	if leader := s.server.others.leader(); leader != nil {
		return leader.Queries
	}
	return s.ownStatus()
}

func (s *streams) ownStatus() []aggregator.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]aggregator.Status, 0, len(s.aggregators))
	for _, a := range s.aggregators {
		out = append(out, a.Status())
	}
	return out
}

// caughtUp returns the state of the only query, and whether the query has read all
// messages that were in the log before the call.
func (s *streams) caughtUp(ctx context.Context) (aggregator.Status, bool) {
	s.mu.Lock()
	h := s.hub
	s.mu.Unlock()
	if h == nil {
		return aggregator.Status{}, false
	}
	log, err := h.Stats(ctx)
	all := s.status()
	if err != nil || len(all) != 1 {
		return aggregator.Status{}, false
	}
	for i, p := range all[0].Partitions {
		if p.Taken < log[i].Last {
			return aggregator.Status{}, false
		}
	}
	return all[0], true
}

// stats is the state of the gateways of all servers.
func (s *streams) stats() gateway.Stats {
	out := s.ownStats()
	for _, o := range s.server.others.reports() {
		out.Add(o.Gateway)
	}
	return out
}

// ownStats is the gateway's state; zero while there is none.
func (s *streams) ownStats() gateway.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gateway == nil {
		return gateway.Stats{Ways: []gateway.WayStats{}}
	}
	return s.gateway.Stats()
}

// run ends with an error only if the hub can't be opened at the start, when somebody
// sees the error; later it tries again.
func (s *streams) run(ctx context.Context) error {
	changes, stop := s.server.Ledger.Watch(ledger.ConfigTopic)
	defer stop()
	defer s.closeHub()
	defer s.keep(ctx)()
	var opened log
	trouble := new(lifecycle.Outages).Trouble(s.server.log)
	for started := false; ctx.Err() == nil; {
		cfg, ready, err := s.server.applied(ctx)
		if fleetscore.Unavailable.Is(err) {
			started = true // the ledger's database is away for a while, which says nothing about the hub
		}
		if err == nil && !ready {
			started = true
			select {
			case <-ctx.Done():
			case <-changes:
			}
			continue
		}
		if err == nil {
			s.server.tellFiles(cfg.Hub)
			if err = s.server.checkFiles(cfg.Hub, "hub.nats."); err != nil {
				started = true
				s.without(err)
			}
		}
		if err == nil {
			if want := s.hubConfig(cfg.Hub); opened != want {
				s.closeHub()
				opened = log{}
				if err = s.openHub(ctx, want); err == nil {
					opened = want
				} else if want.nats.URL != "" && fleetscore.Unavailable.Is(err) {
					started = true // the NATS servers may be started later
				}
				s.without(err)
			}
		}
		if err == nil {
			started = true
			err = s.runOne(ctx, partOf(cfg), changes, &trouble)
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		if !started {
			return err
		}
		trouble.Failed(slog.LevelError, "readings are held up", err)
		select {
		case <-ctx.Done():
		case <-changes:
		case <-time.After(5 * time.Second):
		}
	}
	return nil
}

// without notes why the hub isn't open, or that it is.
func (s *streams) without(err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	s.server.health.Report("hub", why)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = why
}

func (s *streams) closeHub() {
	s.mu.Lock()
	h := s.hub
	s.hub = nil
	s.mu.Unlock()
	if h == nil {
		return
	}
	if err := h.Close(); err != nil {
		s.server.log.Error("closing the hub", "error", err)
	}
}

// runOne runs gateway and aggregators for one configuration, until it changes.
func (s *streams) runOne(ctx context.Context, p part, changes <-chan struct{}, trouble *lifecycle.Trouble) error {
	h := s.hub // only run, which called this, changes it
	metrics := &scope{Registerer: s.server.metrics}
	backlog := &backlog{bound: int64(p.Hub.BacklogMB) << 20}
	defer metrics.unregister()
	g, err := gateway.New(gateway.Config{Hub: p.Hub, Name: "hub", Sources: sources(p.Hub), Server: s.source(p.Hub), Numbers: numbers(p), Longest: longest(p)},
		gateway.Deps{Hub: h, Log: s.server.log, Metrics: metrics, Clock: s.server.clock, Full: backlog.full,
			Owner: func(ctx context.Context) string { return access.CallerOf(ctx).Device() }})
	if err != nil {
		return err
	}
	s.set(g, p.Hub)
	defer s.set(nil, p.Hub)
	services := []lifecycle.Service{{Name: "gateway", Run: g.Run}, {Name: "queries", Run: func(ctx context.Context) error {
		return s.leads.take(ctx, func(ctx context.Context) error { return s.query(ctx, p, h, backlog) })
	}}}

	if p.Hub.MQTT != nil {
		m, err := s.server.mqtt(p.Hub, g, metrics)
		if err != nil {
			return err
		}
		services = append(services, m)
	}
	topics, err := s.kafka(p.Hub, g, metrics)
	if err != nil {
		return err
	}
	services = append(services, topics...)
	if s.source(p.Hub) != "" {
		services = append(services, lifecycle.Service{Name: "backlog of the other servers' queries", Run: func(ctx context.Context) error { return s.watchOthers(ctx, p, h, backlog) }})
	}
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	services = append(services, lifecycle.Service{Name: "configuration", Run: func(c context.Context) error {
		defer cancel()
		return s.untilChanged(c, p, changes)
	}})
	return lifecycle.Run(child, s.server.log, append(services, over(trouble))...)
}

// steady is how long gateway and queries run until an outage counts as over. That they have started isn't
// enough, because what ended them may end them again at once.
const steady = 10 * time.Second

// over is a service beside the gateway that ends the outage. Nobody else uses trouble while services run.
func over(trouble *lifecycle.Trouble) lifecycle.Service {
	return lifecycle.Service{Name: "end of an outage", Run: func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(steady):
		}
		trouble.Works("readings are taken again")
		<-ctx.Done()
		return nil
	}}
}

// query runs the queries until ctx ends.
func (s *streams) query(ctx context.Context, p part, h hub.Hub, backlog *backlog) error {
	metrics := &scope{Registerer: s.server.metrics}
	defer metrics.unregister()
	services := []lifecycle.Service{{Name: "backlog", Run: func(ctx context.Context) error { return backlog.watch(ctx, h, s.held, s.server.health) }}}
	references := reference.New(p.References, reference.Deps{Store: s.server.Catalog.Store(), Log: s.server.log, Health: s.server.health, Now: s.server.clock.Now})
	if err := s.load(ctx, references, h); err != nil {
		return err
	}
	services = append(services, lifecycle.Service{Name: "reference data", Run: references.Run})
	aggs, err := p.aggregators(aggregator.Deps{Hub: h, References: references, Catalog: s.server.Catalog, Health: s.server.health, Now: s.server.clock.Now, Log: s.server.log, Metrics: metrics,
		Committed: func(dataset string) { s.server.Ledger.Put(ledger.DatasetTopic(dataset)) }})
	if err != nil {
		return err
	}
	for _, a := range aggs {
		services = append(services, lifecycle.Service{Name: "aggregator " + a.Name(), Run: a.Run})
	}
	var kept *archive.Archive
	if p.Hub.Archive != nil {
		kept = archive.New(p.Hub, archive.Deps{Hub: h, Store: s.server.Catalog.Store(), Log: s.server.log, Health: s.server.health, Now: s.server.clock.Now})
		services = append(services, lifecycle.Service{Name: "archive", Run: kept.Run})
	}
	files, err := s.exports(p)
	if err != nil {
		return err
	}
	services = append(services, files...)
	s.setQueries(aggs, kept, true)
	defer s.setQueries(nil, nil, false)
	return lifecycle.Run(ctx, s.server.log, services...)
}

// source is the name under which this server's readings lie in the hub; empty if no other
// server writes to it.
func (s *streams) source(c fleetscore.HubConfig) string {
	if c.NATS == nil || !s.server.cfg.Shared {
		return ""
	}
	return s.server.name()
}

// untilChanged returns once another configuration of hub or queries is in force. While
// the ledger can't be read, the one that was read last goes on: readings need the hub alone.
func (s *streams) untilChanged(ctx context.Context, p part, changes <-chan struct{}) error {
	const atMost = time.Second // the ledger changes with every lease; look no more often than this
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
		case <-again:
		}
		again = nil
		cfg, ready, err := s.server.applied(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case fleetscore.Unavailable.Is(err):
			again = time.After(5 * time.Second)
		case err != nil:
			return err
		case ready && !reflect.DeepEqual(partOf(cfg), p):
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(atMost):
		}
	}
}

// needed is the first message of a partition that a query still needs, for the hub's
// retention. It is 0, which keeps everything, while the queries don't run or the
// clock, by which ages are judged, isn't trusted.
func (s *streams) needed(partition int) uint64 {
	if !s.server.clock.Trusted() {
		return 0
	}
	return s.held(partition)
}

// held is the first message of a partition that a query has not committed, or that isn't
// archived; 0 while it isn't known.
func (s *streams) held(partition int) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.querying {
		return 0
	}
	out := least(s.aggregators, partition)
	if s.archive != nil {
		out = min(out, s.archive.Hold(partition))
	}
	return out
}

// least is the first message of a partition that a query needs.
func least(queries []*aggregator.Aggregator, partition int) uint64 {
	out := uint64(math.MaxUint64)
	for _, a := range queries {
		out = min(out, a.Hold(partition))
	}
	return out
}

// backlog measures the part of the hub that no query has committed yet. At its limit
// the gateway refuses readings, so that the log of stopped queries doesn't fill the disk.
type backlog struct {
	bound int64 // bytes; 0 means defaultBacklog
	why   atomic.Pointer[string]
}

const (
	defaultBacklog = 16 << 30
	backlogEvery   = time.Second
	othersEvery    = 10 * time.Second // a look into the store
)

// full says why readings are refused; empty if they aren't.
func (b *backlog) full() string {
	if why := b.why.Load(); why != nil {
		return *why
	}
	return ""
}

// watchOthers measures the backlog while another server runs the queries, by what their
// last commits say.
func (s *streams) watchOthers(ctx context.Context, p part, h hub.Hub, b *backlog) error {
	queries, err := p.aggregators(aggregator.Deps{Hub: h, Catalog: s.server.Catalog, Log: s.server.log})
	if err != nil {
		return err
	}
	ticker := time.NewTicker(othersEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		s.mu.Lock()
		ours := s.querying
		s.mu.Unlock()
		if ours {
			continue
		}
		stats, err := h.Stats(ctx)
		for _, a := range queries {
			if err == nil {
				err = a.Peek(ctx)
			}
		}
		if err == nil {
			b.judge(stats, func(partition int) uint64 { return least(queries, partition) })
		}
	}
}

// watch measures the backlog until ctx ends.
func (b *backlog) watch(ctx context.Context, h hub.Hub, held func(int) uint64, health *obs.Health) error {
	defer func() {
		b.why.Store(nil) // another server runs the queries
		health.Report("backlog", "")
	}()
	ticker := time.NewTicker(backlogEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if stats, err := h.Stats(ctx); err == nil {
			b.judge(stats, held)
			health.Report("backlog", b.full())
		}
	}
}

// judge estimates the size of the uncommitted messages, in bytes.
func (b *backlog) judge(stats []hub.Stats, held func(int) uint64) {
	bound := float64(b.bound)
	if bound == 0 {
		bound = defaultBacklog
	}
	var bytes float64
	for _, s := range stats {
		from := max(held(s.Partition), s.First)
		if n := s.Last + 1 - s.First; n > 0 && from <= s.Last {
			bytes += float64(s.SizeBytes) * float64(s.Last+1-from) / float64(n)
		}
	}
	why := ""
	if bytes > bound {
		why = fmt.Sprintf("%d MB of readings wait to be aggregated, more than the %d MB allowed; readings are refused until the queries have caught up", int64(bytes)>>20, int64(bound)>>20)
	}
	b.why.Store(&why)
}

func (s *streams) set(g *gateway.Gateway, cfg fleetscore.HubConfig) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateway, s.cfg = g, cfg
	if g == nil {
		s.topics = nil
	}
}

func (s *streams) setQueries(aggs []*aggregator.Aggregator, kept *archive.Archive, querying bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aggregators, s.archive, s.querying = aggs, kept, querying
}

// holds reports whether the hub, open or not, contains anything.
func (s *streams) holds(ctx context.Context, cfg fleetscore.HubConfig) (bool, error) {
	s.mu.Lock()
	h := s.hub
	s.mu.Unlock()
	if h == nil {
		c := s.hubConfig(cfg)
		if _, err := os.Stat(c.folder.Dir); c.nats.URL == "" && errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		var err error
		if h, err = c.open(ctx, hub.Deps{Log: s.server.log}); err != nil {
			return false, err
		}
		defer h.Close() // nothing was written
	}
	stats, err := h.Stats(ctx)
	return slices.ContainsFunc(stats, func(p hub.Stats) bool { return p.Last > 0 }), err
}
