package gateway

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/window"
)

// link is the way of one server to a hub that several share.
type link struct {
	*hubtest.Memory
	cut atomic.Bool
}

func (l *link) Append(ctx context.Context, partition int, stamp hub.Stamp, readings ...*fleetscore.Readings) (uint64, error) {
	if l.cut.Load() {
		return 0, fleetscore.Errorf(fleetscore.Unavailable, "append to hub", "", "the link is cut")
	}
	return l.Memory.Append(ctx, partition, stamp, readings...)
}

// TestServersWithOtherClocks: two servers whose clocks differ write to one log. No reading of either is late or early, also after
// silences in which ticks tell the wrong time, and the watermark goes on.
func TestServersWithOtherClocks(t *testing.T) {
	t.Parallel()
	shared := testHub
	shared.Disorder = fleetscore.Duration(5 * time.Second)
	for _, off := range []time.Duration{0, -20 * time.Second, -7 * time.Second, 7 * time.Second, 20 * time.Second, 10 * time.Minute} {
		t.Run(off.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h, begun := hubtest.New(1), time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				start := func(name string, off time.Duration) *Gateway {
					c := clock.New(clock.Config{}, clock.Deps{Wall: func() time.Time { return time.Now().Add(off) }, Steady: func() time.Duration { return time.Since(begun) },
						Synced: func() (time.Time, bool) { return time.Time{}, false }}, time.Time{})
					g, err := New(Config{Hub: shared, Server: name}, Deps{Hub: h, Clock: c})
					if err != nil {
						t.Fatal(err)
					}
					wg.Go(func() { _ = g.Run(ctx) })
					return g
				}
				sent := 0
				take := func(g *Gateway) {
					sent++
					if _, err := g.Take(fleetscore.SourceHTTP, NDJSON, fmt.Appendf(nil, `{"TS":%d,"Device":%q,"Tag":"1","Value":1}`, time.Now().UnixMilli(), g.cfg.Server)); err != nil {
						t.Fatal(err)
					}
				}
				right, wrong := start("a", 0), start("b", off)
				for i := range 300 {
					time.Sleep(time.Second)
					if i/60%2 == 0 { // else it is silent
						take(wrong)
					}
					if i/90%2 == 0 {
						take(right)
					}
				}
				end := time.Now()
				time.Sleep(time.Minute)
				cancel()
				wg.Wait()

				p := window.New(window.Config{Window: time.Second, Disorder: shared.Disorder.D(), IdleAfter: shared.IdleAfter.D(), MaxEarly: time.Minute, GoneAfter: 15 * time.Minute})
				counted := 0
				for _, m := range h.Messages(0) {
					stamp := window.Stamp{Seq: m.Seq, Source: m.Source, Arrived: m.Arrived, Unsure: m.Unsure}
					if m.Tick {
						p.Tick(stamp)
						continue
					}
					p.Readings(stamp, m.Readings, nil, func(i int, v window.Verdict) {
						if counted++; v != window.Counted {
							t.Errorf("the reading of %s in message %d of %s is %s", m.Readings.Times[i], m.Seq, m.Source, v)
						}
					})
				}
				if w, _ := p.Watermark(); counted != sent || w.Time().Before(end) {
					t.Errorf("%d of %d readings are counted, watermark %s a minute after the last one of %s", counted, sent, w, end)
				}
			})
		})
	}
}

// TestServersShareALog: two servers take readings. While one of them is cut off from the
// hub, the ticks and readings of the other one complete nothing, because devices of the
// first have readings that couldn't be stored. Once it is back, they are counted.
func TestServersShareALog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(1)
		shared := testHub
		shared.IdleAfter = fleetscore.Duration(20 * time.Second) // devices repeat their requests within this time
		a, b := &link{Memory: h}, &link{Memory: h}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		start := func(name string, l *link) *Gateway {
			g, err := New(Config{Hub: shared, Server: name}, Deps{Hub: l})
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { _ = g.Run(ctx) })
			return g
		}
		ga, gb := start("a", a), start("b", b)
		take := func(g *Gateway, at time.Time) error {
			_, err := g.Take(fleetscore.SourceHTTP, NDJSON, fmt.Appendf(nil, `{"TS":%d,"Device":%q,"Tag":"1","Value":1}`, at.UnixMilli(), g.cfg.Server))
			return err
		}
		time.Sleep(time.Minute) // ticks of both
		cutAt := time.Now()
		b.cut.Store(true)
		for range 5 * 60 {
			time.Sleep(time.Second)
			if take(ga, time.Now()) != nil || take(gb, cutAt.Add(time.Second)) == nil {
				t.Fatal("a reading of a wasn't stored, or one of b was")
			}
		}
		b.cut.Store(false)
		time.Sleep(10 * time.Second)
		if err := take(gb, cutAt.Add(time.Second)); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		cancel()
		wg.Wait()

		p := window.New(window.Config{Window: time.Second, Disorder: shared.Disorder.D(), IdleAfter: shared.IdleAfter.D(), MaxEarly: time.Minute, GoneAfter: 15 * time.Minute})
		counted := 0
		for _, m := range h.Messages(0) {
			stamp := window.Stamp{Seq: m.Seq, Source: m.Source, Arrived: m.Arrived}
			if m.Source != "http@a" && m.Source != "http@b" {
				t.Errorf("message %d is of source %s", m.Seq, m.Source)
			}
			if m.Tick {
				p.Tick(stamp)
			} else {
				p.Readings(stamp, m.Readings, nil, func(i int, v window.Verdict) {
					if v != window.Counted {
						t.Errorf("the reading of %s in message %d is %s", m.Readings.Times[i], m.Seq, v)
					}
					if m.Source == "http@b" {
						counted++
					}
				})
			}
		}
		if w, _ := p.Watermark(); counted != 1 || w.Time().Before(cutAt.Add(5*time.Minute)) {
			t.Errorf("%d readings of b are counted, watermark %s; want 1, and the time after the outage", counted, w)
		}
	})
}
