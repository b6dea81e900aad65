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
	quiet   time.Time         // since when nothing came and the hub was well
	failed  bool              // whether the last append was in vain
	told    time.Time         // when the log last said so
	looked  time.Time
	mark    fleetscore.Micros // no query takes readings whose windows end before it
}

// waiting is a batch and what the requests whose readings are in it wait for.
type waiting struct {
	*batch
	done chan struct{} // closed when err is set
	err  error
}

func newCommitter(g *Gateway, partition int) *committer {
	period := min(max(g.cfg.Hub.IdleAfter.D()/4, 50*time.Millisecond), 5*time.Second)
	return &committer{g: g, partition: partition, wake: make(chan struct{}, 1), period: period}
}

// put queues finished batches; it returns what to wait for.
func (c *committer) put(batches []*batch) ([]*waiting, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "take readings", c.g.cfg.Name, "the server is stopping").WithHint("send them again in a moment")
	}
	var out []*waiting
	for _, b := range batches {
		if n := len(c.waiting); n > 0 && c.waiting[n-1].takes(b) {
			c.waiting[n-1].join(b)
		} else {
			c.waiting = append(c.waiting, &waiting{batch: b, done: make(chan struct{})})
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
	c.quiet, c.looked = c.g.now(), c.g.now()
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
			for cells := list[0].cells(); n < min(len(list), groupBatches); n++ {
				if cells += list[n].cells(); cells > groupCells {
					break
				}
			}
			c.appendGroup(ctx, list[:n])
			list = list[n:]
		}
	}
}

// appendGroup appends batches with one sync and lets those who wait for them go on.
func (c *committer) appendGroup(ctx context.Context, group []*waiting) {
	readings := make([]*fleetscore.Readings, len(group))
	for i, w := range group {
		readings[i] = &w.finish().Readings
	}
	err := c.append(ctx, c.g.now(), readings...)
	for _, w := range group {
		w.err, w.batch = err, nil // requests that wait for others hold on to w
		close(w.done)
	}
}

// append appends readings, or a tick if there are none, that arrived at a time.
func (c *committer) append(ctx context.Context, at time.Time, readings ...*fleetscore.Readings) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	start := c.g.now()
	c.arrived = max(c.arrived, fleetscore.MicrosOf(at))
	stamp := hub.Stamp{Source: fleetscore.SourceHTTP, Arrived: c.arrived, Unsure: micros(c.g.clock.Unsure())}
	_, err := c.g.hub.Append(ctx, c.partition, stamp, readings...)
	end := c.g.now()
	outcome := "done"
	if err != nil {
		outcome = "failed"
		if end.Sub(c.told) > tellEvery { // devices try again and again
			c.told = end
			c.g.log.Error("readings can't be stored", "partition", c.partition, "error", err)
		}
	} else if c.failed {
		c.told = time.Time{}
		c.g.log.Info("readings are stored again", "partition", c.partition)
	}
	c.failed = err != nil
	c.g.metrics.appends.WithLabelValues(outcome).Observe(end.Sub(start).Seconds())
	alive := err != nil
	for _, r := range readings {
		c.g.metrics.batch.Observe(float64(r.Len()))
		if !c.stale(r) { // notes how far readings are: all of them are to be looked at
			alive = true
		}
	}
	if alive {
		c.quiet = end
	}
	return err
}

func micros(d time.Duration) fleetscore.Micros { return fleetscore.Micros(d.Microseconds()) }

// stale tells whether every reading is late for every query. Readings that are
// dropped don't end the quiet: a device whose clock is behind can't keep the time of
// a partition from going on.
func (c *committer) stale(r *fleetscore.Readings) bool {
	if r.Len() == 0 {
		return false
	}
	newest := slices.Max(r.Times)
	stale := newest < c.mark-micros(c.g.cfg.Longest)
	c.mark = max(c.mark, min(newest, c.arrived)-micros(c.g.cfg.Hub.Disorder.D()))
	return stale
}

// tick appends a tick when the partition was quiet for as long as it takes to
// count as idle, while all was well. It speaks for the time before the oldest
// request that is still being parsed. A pause of this process itself, such as a
// laptop's sleep, doesn't count as quiet, because devices may have sent in vain; nor
// does a time that is only a guess.
func (c *committer) tick(ctx context.Context) {
	now := c.g.now()
	if now.Sub(c.looked) > 3*c.period || !c.g.clock.Certain() {
		c.quiet = now
	}
	c.looked = now
	at := c.g.parsing.oldest(now)
	if !c.failed && at.Sub(c.quiet) < c.g.cfg.Hub.IdleAfter.D() {
		return
	}
	c.mu.Lock()
	busy := len(c.waiting) > 0
	c.mu.Unlock()
	switch {
	case busy, !c.failed && fleetscore.MicrosOf(at) < c.arrived:
	case c.failed: // a message without readings shows whether the hub is well again; only then silence begins to count
		_ = c.append(ctx, now, &fleetscore.Readings{}) // logged
	case c.append(ctx, at) == nil:
		c.mark = max(c.mark, fleetscore.MicrosOf(at)-micros(c.g.cfg.Hub.IdleAfter.D()))
		c.g.metrics.ticks.Inc()
	}
}
