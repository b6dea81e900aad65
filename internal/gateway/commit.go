package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// appendTimeout bounds one append to the hub.
const appendTimeout = 10 * time.Second

// A group is the batches that are appended with one sync, so that a request whose
// readings take many messages waits for few. It is bounded by the memory that its
// batches take once they are finished.
const (
	groupBatches = 64
	groupCells   = 1 << 21
)

// tellEvery is how often the log says that readings can't be stored.
const tellEvery = time.Minute

// committer appends one partition's readings to the hub, and ticks.
type committer struct {
	g         *Gateway
	partition int
	wake      chan struct{} // cap 1: there is something to append
	period    time.Duration // between looks at whether to tick

	mu      sync.Mutex // guards what follows
	waiting []*waiting
	closed  bool

	// Used by run alone.
	arrived fleetscore.Micros // of the last message; arrivals never go back
	sources []sourceState     // in the order of Config.Sources
	failed  bool              // whether the last append failed
	told    time.Time         // when the log last said so
	looked  time.Time
}

// sourceState is what a committer knows of one source.
type sourceState struct {
	name  fleetscore.Source
	quiet time.Time         // since when nothing came from it and the hub was well
	mark  fleetscore.Micros // no query takes its readings whose windows end before it
}

// waiting is a batch and what those wait for whose readings are in it.
type waiting struct {
	*batch
	source int           // place in the committer's sources
	done   chan struct{} // closed when err is set
	err    error
}

func newCommitter(g *Gateway, partition int) *committer {
	period := min(max(g.cfg.Hub.IdleAfter.D()/4, 50*time.Millisecond), 5*time.Second)
	c := &committer{g: g, partition: partition, wake: make(chan struct{}, 1), period: period}
	for _, name := range g.cfg.Sources {
		c.sources = append(c.sources, sourceState{name: name})
	}
	return c
}

// put queues finished batches of a source; it returns what to wait for.
func (c *committer) put(source int, batches []*batch) ([]*waiting, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "take readings", c.g.cfg.Name, "the server is stopping").WithHint("send them again in a moment")
	}
	var out []*waiting
	for _, b := range batches {
		if n := len(c.waiting); n > 0 && c.waiting[n-1].source == source && c.waiting[n-1].takes(b) {
			c.waiting[n-1].join(b)
		} else {
			c.waiting = append(c.waiting, &waiting{batch: b, source: source, done: make(chan struct{})})
		}
		if last := c.waiting[len(c.waiting)-1]; len(out) == 0 || out[len(out)-1] != last {
			out = append(out, last)
		}
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return out, nil
}

func (c *committer) run(ctx context.Context) {
	ticker := time.NewTicker(c.period)
	defer ticker.Stop()
	c.heard(c.g.now())
	c.looked = c.g.now()
	for {
		select {
		case <-ctx.Done():
			c.mu.Lock()
			c.closed = true
			c.mu.Unlock()
			c.flush(context.WithoutCancel(ctx))
			return
		case <-c.wake:
			c.flush(context.WithoutCancel(ctx)) // who waits gets a verdict even while the server stops
		case <-ticker.C:
			c.tick(ctx)
		}
	}
}

// flush appends all that waits.
func (c *committer) flush(ctx context.Context) {
	for {
		c.mu.Lock()
		list := c.waiting
		c.waiting = nil
		c.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for len(list) > 0 {
			n := 1
			for cells := list[0].cells(); n < min(len(list), groupBatches) && list[n].source == list[0].source; n++ {
				if cells += list[n].cells(); cells > groupCells {
					break
				}
			}
			c.appendGroup(ctx, list[:n])
			list = list[n:]
		}
	}
}

// heard begins the silence of all sources anew.
func (c *committer) heard(now time.Time) {
	for i := range c.sources {
		c.sources[i].quiet = now
	}
}

// appendGroup appends batches of one source with one sync and lets those who wait for
// them go on.
func (c *committer) appendGroup(ctx context.Context, group []*waiting) {
	readings := make([]*fleetscore.Readings, len(group))
	for i, w := range group {
		readings[i] = &w.finish().Readings
	}
	err := c.append(ctx, group[0].source, c.g.now(), readings...)
	for _, w := range group {
		w.err, w.batch = err, nil // requests that wait for others hold on to w
		close(w.done)
	}
}

// append appends readings of a source, or a tick of it if there are none, that arrived
// at a time.
func (c *committer) append(ctx context.Context, source int, at time.Time, readings ...*fleetscore.Readings) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	start := c.g.now()
	src := &c.sources[source]
	c.arrived = max(c.arrived, fleetscore.MicrosOf(at))
	stamp := hub.Stamp{Source: src.name, Arrived: c.arrived, Unsure: micros(c.g.clock.Unsure())}
	_, err := c.g.hub.Append(ctx, c.partition, stamp, readings...)
	end := c.g.now()
	outcome := "done"
	if err != nil {
		outcome = "failed"
		if end.Sub(c.told) > tellEvery { // devices try again and again
			c.told = end
			c.g.log.Error("readings can't be stored", "partition", c.partition, "error", err)
		}
		c.heard(end) // any source may have had readings that failed
	} else if c.failed {
		c.told = time.Time{}
		c.g.log.Info("readings are stored again", "partition", c.partition)
	}
	c.failed = err != nil
	c.g.metrics.appends.WithLabelValues(outcome).Observe(end.Sub(start).Seconds())
	for _, r := range readings {
		c.g.metrics.batch.Observe(float64(r.Len()))
		if !c.stale(src, r) { // notes how far readings are: all of them are to be looked at
			src.quiet = end
		}
	}
	return err
}

func micros(d time.Duration) fleetscore.Micros { return fleetscore.Micros(d.Microseconds()) }

// stale tells whether every reading is late for every query. Readings that are
// dropped don't end the silence: a device whose clock is behind can't keep the time of
// a source from going on.
func (c *committer) stale(src *sourceState, r *fleetscore.Readings) bool {
	if r.Len() == 0 {
		return false
	}
	newest := slices.Max(r.Times)
	stale := newest < src.mark-micros(c.g.cfg.Longest)
	src.mark = max(src.mark, min(newest, c.arrived)-micros(c.g.cfg.Hub.Disorder.D()))
	return stale
}

// tick appends a tick for each source that was silent for as long as it takes to count
// as idle, while all was well. A tick speaks for the time before the oldest request
// that is still being parsed. A pause of this process itself, such as a laptop's sleep,
// doesn't count as silence, because devices may have sent readings that failed; nor
// does a time that is only a guess.
func (c *committer) tick(ctx context.Context) {
	now := c.g.now()
	if now.Sub(c.looked) > 3*c.period || !c.g.clock.Certain() {
		c.heard(now)
	}
	c.looked = now
	if c.busy() {
		return
	}
	if c.failed { // a message without readings shows whether the hub is well again; only then silence begins to count
		_ = c.append(ctx, 0, now, &fleetscore.Readings{}) // logged
		return
	}
	at := c.g.parsing.oldest(now)
	for i := range c.sources {
		src := &c.sources[i]
		if at.Sub(src.quiet) < c.g.cfg.Hub.IdleAfter.D() || fleetscore.MicrosOf(at) < c.arrived {
			continue
		}
		if c.append(ctx, i, at) != nil {
			return
		}
		src.mark = max(src.mark, fleetscore.MicrosOf(at)-micros(c.g.cfg.Hub.IdleAfter.D()))
		c.g.metrics.ticks.Inc()
	}
}

// busy tells whether readings wait.
func (c *committer) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) > 0
}
