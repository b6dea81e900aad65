package gateway

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
)

// appendTimeout bounds one append to the hub.
const appendTimeout = 10 * time.Second

// A group is the batches that are appended with one sync, so that a request whose
// readings need many messages waits for few syncs. Its size is bounded by the memory
// of its finished batches.
const (
	groupBatches = 256
	groupCells   = 1 << 21
)

// committer appends the readings and ticks of one partition to the hub.
type committer struct {
	g         *Gateway
	partition int
	wake      chan struct{}  // cap 1: there is something to append
	period    time.Duration  // time between two checks for a tick
	fixed     []*sourceState // those of Config.Sources, in their order

	failed atomic.Bool // whether the last append failed

	mu      sync.Mutex // guards what follows
	waiting []*waiting
	sources []*sourceState // the fixed ones, then those of feeds
	closed  bool

	// Used by run alone.
	keys    numbering
	arrived fleetscore.Micros // of the last message; arrivals never go back
	trouble lifecycle.Trouble // why appends fail
	looked  time.Time
}

// sourceState is what a committer knows of one source. Its times are used by run alone.
type sourceState struct {
	name     fleetscore.Source // in the log
	feed     *Feed             // nil if the source isn't a log itself
	position string            // guarded by the committer's mu: where what the feed handed over ends
	quiet    time.Time         // since when nothing came from the source while the hub worked
	ticked   time.Time         // the last tick
	mark     fleetscore.Micros // every query drops the source's readings whose windows end before this time
}

// waiting is a batch whose requests wait until it is stored.
type waiting struct {
	*batch
	source *sourceState
	done   chan struct{} // closed when err is set
	err    error
}

func newCommitter(g *Gateway, partition int) *committer {
	period := min(max(g.cfg.Hub.IdleAfter.D()/4, 50*time.Millisecond), 5*time.Second)
	c := &committer{g: g, partition: partition, trouble: g.outages.Trouble(g.log), wake: make(chan struct{}, 1), period: period}
	for _, name := range g.cfg.Sources {
		c.fixed = append(c.fixed, &sourceState{name: name.At(g.cfg.Server)})
	}
	c.sources = slices.Clone(c.fixed)
	return c
}

// put queues finished batches of a source and returns the entries to wait for. A feed's
// position is where its log is stored up to once the batches are.
func (c *committer) put(source *sourceState, batches []*batch, position string) ([]*waiting, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "take readings", c.g.cfg.Name, "the server is stopping").WithHint("send the readings again in a moment")
	}
	source.position = position
	var out []*waiting
	for _, b := range batches {
		if n := len(c.waiting); n > 0 && c.waiting[n-1].source == source && c.waiting[n-1].takes(b) {
			c.waiting[n-1].join(b)
			c.waiting[n-1].position = b.position
			c.g.shared.release(b)
		} else {
			c.waiting = append(c.waiting, &waiting{batch: b, source: source, done: make(chan struct{})})
		}
		if last := c.waiting[len(c.waiting)-1]; len(out) == 0 || out[len(out)-1] != last {
			out = append(out, last)
		}
	}
	if len(batches) > 0 {
		select {
		case c.wake <- struct{}{}:
		default:
		}
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
			c.flush(context.WithoutCancel(ctx)) // a waiting request gets a verdict even while the server stops
		case <-ticker.C:
			c.tick(ctx)
		}
	}
}

// flush appends all waiting batches. Those of a feed are appended one after the other, so
// that a position never stands behind readings that aren't stored.
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
			for cells := list[0].cells(); n < min(len(list), groupBatches) && list[n].source == list[0].source && list[0].source.feed == nil; n++ {
				if cells += list[n].cells(); cells > groupCells {
					break
				}
			}
			c.appendGroup(ctx, list[:n])
			list = list[n:]
		}
	}
}

// heard restarts the time of silence of all sources.
func (c *committer) heard(now time.Time) {
	for _, src := range c.all() {
		src.quiet = now
	}
}

// all lists the sources.
func (c *committer) all() []*sourceState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sources)
}

// appendGroup appends batches of one source with one sync and answers the requests
// that wait for them.
func (c *committer) appendGroup(ctx context.Context, group []*waiting) {
	readings := make([]*fleetscore.Readings, len(group))
	for i, w := range group {
		readings[i] = w.finish(&c.keys)
	}
	src := group[0].source
	err := src.feed.sound()
	if err == nil {
		err = c.append(ctx, src, c.g.now(), group[len(group)-1].position, readings...)
	}
	if err != nil {
		src.feed.fail()
	}
	for _, w := range group {
		c.g.shared.release(w.batch)
		w.err, w.batch = err, nil // a request that still waits for other batches keeps w in memory
		close(w.done)
	}
}

// append appends readings of a source that arrived at a time, or a tick of the source
// if there are no readings.
func (c *committer) append(ctx context.Context, src *sourceState, at time.Time, position string, readings ...*fleetscore.Readings) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	start := c.g.now()
	c.arrived = max(c.arrived, fleetscore.MicrosOf(at))
	stamp := hub.Stamp{Source: src.name, Arrived: c.arrived, Unsure: micros(c.g.clock.Unsure()), Position: position}
	_, err := c.g.hub.Append(ctx, c.partition, stamp, readings...)
	end := c.g.now()
	outcome := "done"
	if err != nil {
		outcome = "failed"
		c.trouble.Failed(slog.LevelError, "readings can't be stored", err, "partition", c.partition)
		c.heard(end) // readings of any source may have failed
	} else {
		c.trouble.Works("readings are stored again", "partition", c.partition)
	}
	c.failed.Store(err != nil)
	c.g.metrics.appends.WithLabelValues(outcome).Observe(end.Sub(start).Seconds())
	for _, r := range readings {
		c.g.metrics.batch.Observe(float64(r.Len()))
		if !c.stale(src, r) { // stale also notes the times of the readings, so it must see all of them
			src.quiet = end
		}
	}
	return err
}

func micros(d time.Duration) fleetscore.Micros { return fleetscore.Micros(d.Microseconds()) }

// stale reports whether every reading is too late for every query. Such readings
// don't end the silence, so that a device whose clock is behind can't stop the time
// of its source.
func (c *committer) stale(src *sourceState, r *fleetscore.Readings) bool {
	if r.Len() == 0 {
		return false
	}
	newest := slices.Max(r.Times)
	stale := newest < src.mark-micros(c.g.cfg.Longest)
	src.mark = max(src.mark, min(newest, c.arrived)-micros(c.g.cfg.Hub.Disorder.D()))
	return stale
}

// tick appends a tick for each source that was silent for long enough to count as
// idle, while everything worked. A tick applies to the time before the oldest request
// that is still being parsed. A pause of this process itself, such as a laptop's
// sleep, doesn't count as silence, because devices may have sent readings that
// failed; nor does a time that the clock isn't sure of.
func (c *committer) tick(ctx context.Context) {
	now := c.g.now()
	if now.Sub(c.looked) > 3*c.period || !c.g.clock.Certain() {
		c.heard(now)
	}
	c.looked = now
	if c.busy() {
		return
	}
	if c.failed.Load() { // a message without readings shows whether the hub works again; silence is counted only after that
		_ = c.append(ctx, c.fixed[0], now, "", &fleetscore.Readings{}) // logged
		return
	}
	idle := c.g.cfg.Hub.IdleAfter.D()
	for _, src := range c.all() {
		at, ok, quiet := c.g.parsing.oldest(now), true, src.quiet
		if src.feed != nil {
			var since time.Time
			since, at, ok = src.feed.silentAt(now, idle)
			ok = ok && now.Sub(src.ticked) >= idle/2 // there may be many feeds
			if since.After(quiet) {
				quiet = since
			}
		}
		if !ok || at.Sub(quiet) < idle {
			continue
		}
		if fleetscore.MicrosOf(at) < c.arrived {
			if src.feed == nil {
				continue
			}
			at = c.arrived.Time() // silentAt is never far behind
		}
		position, ok := c.idle(src)
		if !ok {
			return // readings came
		}
		if c.append(ctx, src, at, position) != nil {
			return
		}
		src.mark, src.ticked = max(src.mark, fleetscore.MicrosOf(at)-micros(idle)), now
		c.g.metrics.ticks.Inc()
	}
}

// busy reports whether readings wait.
func (c *committer) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) > 0
}

// idle returns a feed's position if nothing waits, so that everything before the position is stored.
func (c *committer) idle(src *sourceState) (position string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return src.position, len(c.waiting) == 0
}
