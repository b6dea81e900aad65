package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// topics tells watchers of topics about events.
type topics struct {
	mu       sync.Mutex // guards watchers
	watchers map[string][]chan struct{}
}

func (e *topics) watch(names ...string) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range names {
		e.watchers[n] = append(e.watchers[n], ch)
	}
	return ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, n := range names {
			e.watchers[n] = slices.DeleteFunc(e.watchers[n], func(c chan struct{}) bool { return c == ch })
		}
	}
}

func (e *topics) put(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ch := range e.watchers[name] {
		ch <- struct{}{}
	}
}

// TestLoopSteps: a loop steps at its start, after events of what it depends on, and when
// its clock says so, also if that clock jumps; a step that fails is reported and
// repeated after growing waits, which events shorten.
func TestLoopSteps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		health, events := &obs.Health{}, &topics{watchers: map[string][]chan struct{}{}}
		var mu sync.Mutex // guards what follows
		jump, failed := time.Duration(0), 0
		next, problem := Next[string]{}, error(nil)
		var steps []string
		set := func(change func()) {
			mu.Lock()
			defer mu.Unlock()
			change()
		}
		now := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(jump)
		}
		loops := Loops[string]{Watch: events.watch, Now: now, Failed: func(string) { set(func() { failed++ }) }, Health: health, Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- loops.Run(ctx, Loop[string]{Kind: "k", Part: "part", Watch: []string{"a"}, Step: func(context.Context) (Next[string], error) {
				mu.Lock()
				defer mu.Unlock()
				steps = append(steps, fmt.Sprint(time.Since(began).Round(time.Second)))
				return next, problem
			}})
		}()
		check := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			set(func() {
				if d := cmp.Diff(want, steps); d != "" {
					t.Errorf("%s (-want +got):\n%s", what, d)
				}
				steps = nil
			})
		}
		check("start", "0s")
		time.Sleep(time.Hour)
		check("nothing happens")
		set(func() { next = Next[string]{Wake: time.Now().Add(10 * time.Minute), Topics: []string{"b"}} })
		events.put("a")
		check("an event, and other topics", "1h0m0s", "1h0m0s")
		events.put("a")
		check("an event of the former topics")
		events.put("b")
		check("an event of the new topics", "1h0m0s")
		set(func() { next = Next[string]{} })
		time.Sleep(20 * time.Minute)
		check("the time has come", "1h10m0s")
		set(func() { next = Next[string]{Wake: time.Now().Add(time.Hour)} })
		events.put("b")
		check("an hour to wait", "1h20m0s")
		set(func() { jump, next = 2*time.Hour, Next[string]{} })
		time.Sleep(time.Second)
		check("the clock jumps", "1h20m1s")

		set(func() { problem = errors.New("broken") })
		events.put("b")
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		if p := health.Problems(); len(p) != 1 || p[0].Part != "part" || p[0].Problem != "broken" || failed != len(steps) || failed < 7 || failed > 9 {
			t.Errorf("within a minute %d failures are counted, steps at %v; health says %+v", failed, steps, p)
		}
		mu.Unlock()
		set(func() { steps, problem = nil, nil })
		events.put("b")
		time.Sleep(soonest)
		synctest.Wait()
		mu.Lock()
		if p := health.Problems(); len(steps) != 1 || len(p) != 0 {
			t.Errorf("after an event: steps at %v, problems %+v", steps, p)
		}
		mu.Unlock()
		set(func() { problem = errors.New("broken again") })
		events.put("b")
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the loop ends with %v", err)
		}
		if p := health.Problems(); len(p) != 0 {
			t.Errorf("a loop that ended leaves %+v", p)
		}
	})
}

// TestGentleLoopRests: where events never end, a gentle loop whose steps take long leaves most
// of the time to others, and one whose steps take no time goes on at once.
func TestGentleLoopRests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ step, want time.Duration }{{100 * time.Millisecond, 500 * time.Millisecond}, {time.Second, time.Second + longestRest}, {0, 0}} {
		synctest.Test(t, func(t *testing.T) {
			always := make(chan struct{})
			close(always)
			ctx, cancel := context.WithCancel(t.Context())
			var begun []time.Time
			loops := Loops[string]{Watch: func(...string) (<-chan struct{}, func()) { return always, func() {} }, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
			err := loops.Run(ctx, Loop[string]{Gentle: true, Step: func(context.Context) (Next[string], error) {
				if begun = append(begun, time.Now()); len(begun) == 5 {
					cancel()
				}
				time.Sleep(c.step)
				return Next[string]{}, nil
			}})
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			for i := range 4 {
				if got := begun[i+1].Sub(begun[i]); got != c.want {
					t.Errorf("steps of %s follow each other after %s, want %s", c.step, got, c.want)
				}
			}
		})
	}
}

// TestOutageIsToldOnce: an outage that stops several loops is one line in the log when it begins,
// however often they try again and whatever each wanted to do, others after 10 minutes and then at growing distances, and one when it is
// over. Other errors are told for themselves.
func TestOutageIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		events := &topics{watchers: map[string][]chan struct{}{}}
		refused := errors.New("connection refused")
		var mu sync.Mutex // guards away
		away := true
		var log bytes.Buffer
		loops := Loops[string]{Watch: events.watch, Now: time.Now, Failed: func(string) {}, Outages: &Outages{},
			Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.MessageKey || a.Key == "error" || a.Key == "for" {
					return a
				}
				return slog.Attr{}
			}}))}
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for i := range 20 {
			group.Go(func() {
				_ = loops.Run(ctx, Loop[string]{Part: fmt.Sprint(i), Step: func(context.Context) (Next[string], error) {
					mu.Lock()
					defer mu.Unlock()
					switch {
					case !away:
						return Next[string]{}, nil
					case i == 0:
						return Next[string]{}, fleetscore.Errorf(fleetscore.Corrupt, "read", "0", "a file is damaged")
					}
					return Next[string]{}, fleetscore.Errorf(fleetscore.Unavailable, "plan", fmt.Sprint(i), "the database can't be reached: %w", refused)
				}})
			})
		}
		time.Sleep(time.Hour)
		mu.Lock()
		away = false
		mu.Unlock()
		time.Sleep(time.Hour)
		cancel()
		group.Wait()
		for text, want := range map[string]int{"connection refused": 3, "for=10m": 2, "for=30m": 2, "is damaged": 3, "goes on after failures": 2, "\n": 8} {
			if got := strings.Count(log.String(), text); got != want {
				t.Errorf("%q is %d times in the log, want %d:\n%s", text, got, want, &log)
			}
		}
	})
}

// TestOutageWithManyTexts: a part that fails for two causes in turn is told of each once, and one whose errors never have the same text is told
// of some of them only.
func TestOutageWithManyTexts(t *testing.T) {
	t.Parallel()
	for texts, want := range map[int]int{2: 2, 1000: maxCauses + 1} {
		var log bytes.Buffer
		var outages Outages
		one, other := outages.Trouble(slog.New(slog.NewTextHandler(&log, nil))), outages.Trouble(slog.New(slog.NewTextHandler(&log, nil)))
		for i := range 1000 {
			one.Failed(slog.LevelWarn, "away", fmt.Errorf("error %d", i%texts))
		}
		other.Failed(slog.LevelWarn, "away", errors.New("error 0"))
		if got := strings.Count(log.String(), "away"); got != want {
			t.Errorf("errors with %d texts are told %d times, want %d:\n%s", texts, got, want, &log)
		}
		other.Ends()
		one.Works("works")
		one.Works("works")
		if got := strings.Count(log.String(), "works"); got != 1 || len(outages.open) != 0 {
			t.Errorf("the end is told %d times, and %d causes are open", got, len(outages.open))
		}
	}
}
