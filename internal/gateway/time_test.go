package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

// world is a gateway over a hub in memory whose machine's clock can be set wrongly.
// It runs in a synctest bubble.
type world struct {
	t    *testing.T
	hub  *hubtest.Memory
	g    *Gateway
	off  atomic.Int64 // the error of the wall clock
	full atomic.Bool
}

// within runs a test of a gateway; lastSeen is how long before the start the log's
// last message came, 0 for an empty log, and off is the error of the wall clock.
func within(t *testing.T, partitions int, lastSeen, off time.Duration, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, hub: hubtest.New(partitions)}
		w.off.Store(int64(off))
		begin := time.Now()
		var seen time.Time
		if lastSeen != 0 {
			seen = begin.Add(-lastSeen)
		}
		c := clock.New(clock.Config{}, clock.Deps{Wall: func() time.Time { return time.Now().Add(time.Duration(w.off.Load())) },
			Steady: func() time.Duration { return time.Since(begin) }, Synced: func() (time.Time, bool) { return time.Time{}, false }}, seen)
		cfg := Config{Hub: testHub, Longest: 5 * time.Second}
		cfg.Hub.Disorder = fleetscore.Duration(2 * time.Second)
		g, err := New(cfg, Deps{Hub: w.hub, Clock: c, Full: func() string {
			if w.full.Load() {
				return "the queries are behind"
			}
			return ""
		}})
		if err != nil {
			t.Fatal(err)
		}
		w.g = g
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()
		test(w)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// send posts a reading of a device at a time.
func (w *world) send(device string, at time.Time) (int, Problem) {
	return post(w.g, "application/json", fmt.Sprintf(`{"TS":%q,"Device":%q,"Tag":"1","Value":1}`, at.UTC().Format(time.RFC3339Nano), device))
}

// ticks counts a partition's ticks and returns the arrival of the latest message.
func (w *world) ticks(partition int) (n int, latest time.Time) {
	var before fleetscore.Micros
	for _, m := range w.hub.Messages(partition) {
		if m.Tick {
			n++
		}
		if m.Arrived < before {
			w.t.Errorf("message %d arrived before the one before it", m.Seq)
		}
		before = m.Arrived
	}
	return n, before.Time()
}

// TestServerClockAhead: if a server's clock is an hour ahead for 8 s, no silence is
// declared for that hour, and readings are still taken, from devices with the right
// time and from devices with the server's time.
func TestServerClockAhead(t *testing.T) {
	t.Parallel()
	within(t, 1, 0, 0, func(w *world) {
		time.Sleep(20 * time.Second)
		w.off.Store(int64(time.Hour))
		time.Sleep(8 * time.Second)
		for _, at := range []time.Time{time.Now(), time.Now().Add(time.Hour)} {
			if status, p := w.send("a", at); status != 200 {
				t.Errorf("status %d while the clock is ahead: %+v", status, p)
			}
		}
		w.off.Store(0)
		time.Sleep(20 * time.Second)
		if n, latest := w.ticks(0); n == 0 || latest.After(time.Now()) {
			t.Errorf("%d ticks; the latest arrival is %s, it is %s", n, latest, time.Now())
		}
		if status, p := w.send("a", time.Now()); status != 200 {
			t.Errorf("status %d after it: %+v", status, p)
		}
		if status, _ := w.send("a", time.Now().Add(time.Hour)); status != 400 {
			t.Errorf("a reading an hour ahead gets status %d while the clock is trusted, want 400", status)
		}
	})
}

// TestStartBehind: a server whose clock at the start is an hour before the last
// message of its log takes readings with the right time, and records that their
// arrival is uncertain.
func TestStartBehind(t *testing.T) {
	t.Parallel()
	within(t, 1, 10*time.Minute, -time.Hour, func(w *world) {
		seen := time.Now().Add(-10 * time.Minute)
		if status, p := w.send("a", time.Now()); status != 200 {
			t.Fatalf("status %d: %+v", status, p)
		}
		m := w.hub.Messages(0)[0]
		if m.Arrived < fleetscore.MicrosOf(seen) || m.Unsure < micros(10*time.Minute) {
			t.Errorf("it arrived at %s, unsure by %d us; the log last saw %s", m.Arrived, m.Unsure, seen)
		}
		time.Sleep(time.Minute)
		if n, _ := w.ticks(0); n != 0 {
			t.Errorf("%d ticks while the time is a guess", n)
		}
	})
}

// TestStartTwoDaysLater: a server that starts two days after its log's last message
// declares no silence for these days until its clock is confirmed, here by the times
// of readings.
func TestStartTwoDaysLater(t *testing.T) {
	t.Parallel()
	within(t, 1, 48*time.Hour, 0, func(w *world) {
		time.Sleep(time.Minute)
		if n, _ := w.ticks(0); n != 0 {
			t.Errorf("%d ticks before anything confirms the clock", n)
		}
		for range 4 {
			if status, p := w.send("a", time.Now()); status != 200 {
				t.Fatalf("status %d: %+v", status, p)
			}
		}
		time.Sleep(time.Minute)
		if n, latest := w.ticks(0); n == 0 || time.Since(latest) > 10*time.Second {
			t.Errorf("%d ticks, the latest message is of %s", n, latest)
		}
	})
}

// TestQuietBesideBusy: a partition ticks even if requests are always being parsed; a
// tick applies to the time before the oldest of them.
func TestQuietBesideBusy(t *testing.T) {
	t.Parallel()
	within(t, 1, 0, 0, func(w *world) {
		end := w.g.parsing.begin(w.g.now)
		var hangs time.Time // since when the remaining request is parsed
		for range 100 {     // there are always two at once
			hangs = time.Now()
			next := w.g.parsing.begin(w.g.now)
			time.Sleep(300 * time.Millisecond)
			end()
			end = next
		}
		n, latest := w.ticks(0)
		if n == 0 || time.Since(latest) > 3*time.Second {
			t.Errorf("%d ticks in 30 s, the latest applies to %s, now it is %s", n, latest, time.Now())
		}
		time.Sleep(time.Minute) // one request hangs
		if _, l := w.ticks(0); l.After(hangs) {
			t.Errorf("a tick applies to %s though a request of %s is still parsed", l, hangs)
		}
		end()
		time.Sleep(10 * time.Second)
		if _, l := w.ticks(0); time.Since(l) > 3*time.Second {
			t.Errorf("the latest tick applies to %s, now it is %s", l, time.Now())
		}
	})
}

// TestStaleDevice: if the only device that still sends has a clock that is an hour
// behind, the partition's time goes on nevertheless.
func TestStaleDevice(t *testing.T) {
	t.Parallel()
	within(t, 1, 0, 0, func(w *world) {
		w.send("fresh", time.Now())
		for range 60 {
			time.Sleep(time.Second)
			w.send("stale", time.Now().Add(-time.Hour))
		}
		if n, _ := w.ticks(0); n == 0 {
			t.Error("no tick in a minute in which only late readings came")
		}
		before, _ := w.ticks(0)
		for range 60 {
			time.Sleep(time.Second)
			w.send("fresh", time.Now())
		}
		if n, _ := w.ticks(0); n > before+2 {
			t.Errorf("%d ticks while readings in time came", n-before)
		}
	})
}

// TestBacklog: when too many readings wait to be aggregated, requests are refused
// before their body is read, and the answer says when to try again.
func TestBacklog(t *testing.T) {
	t.Parallel()
	within(t, 1, 0, 0, func(w *world) {
		w.full.Store(true)
		r := httptest.NewRequest(http.MethodPost, "/hubs/hub/messages", strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/x-ndjson")
		rec := httptest.NewRecorder()
		w.g.ServeHTTP(rec, r)
		if rec.Code != 429 || rec.Header().Get("Retry-After") != "10" || !strings.Contains(rec.Body.String(), "the queries are behind") {
			t.Errorf("got %d, %v, %s", rec.Code, rec.Header(), rec.Body)
		}
		w.full.Store(false)
		if status, p := w.send("a", time.Now()); status != 200 {
			t.Errorf("afterwards: %d %+v", status, p)
		}
	})
}

func TestUnits(t *testing.T) {
	t.Parallel()
	g := start(t, hubtest.New(1), Config{})
	now := time.Now()
	for text, want := range map[string]string{
		fmt.Sprint(now.UnixMilli()):     "",
		"946684800000":                  "", // 2000-01-01
		fmt.Sprint(now.Unix()):          "multiply the number by 1000, or say it in hub.time_unit",
		fmt.Sprintf("%d.5", now.Unix()): "multiply the number by 1000",
		fmt.Sprint(now.UnixMicro()):     "as microseconds it means " + now.UTC().Format("2006-01-02T15:04"),
		fmt.Sprint(now.UnixNano()):      "as nanoseconds it means " + now.UTC().Format("2006-01-02T15:04"),
		"0":                             "is the device's clock set?",
		"-0.5":                          "is the device's clock set?",
		"42":                            "13 digits",
		"12345678":                      "13 digits",
		"-5000000000":                   "before 1970",
		"1e30":                          "not a number of milliseconds",
		`"1970-01-01T00:00:07Z"`:        "the time is in 1970",
		`"1971-01-01T00:00:01Z"`:        "",
	} {
		status, p := post(g, "application/json", `{"TS":`+text+`,"Device":"a","Tag":"1","Value":1}`)
		switch {
		case want == "" && status != 200:
			t.Errorf("%s: status %d: %+v", text, status, p)
		case want != "" && (status != 400 || len(p.Lines) != 1 || !strings.Contains(p.Lines[0].Reason, want)):
			t.Errorf("%s: status %d, %+v; want a reason with %q", text, status, p.Lines, want)
		}
	}
}

// TestTimeUnit: numbers count the unit that the configuration says, whole and with fractions, in every format; a number of
// another unit is refused with what it would mean.
func TestTimeUnit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ unit, number, want, other, says string }{
		{"s", "1763892005", "2025-11-23T10:00:05Z", "1763892005123", "as milliseconds it means 2025-11-23T10:00:05Z: divide the number by 1000"},
		{"s", "1763892005.123457", "2025-11-23T10:00:05.123457Z", "5", "which have 10 digits today"},
		{"ms", "1763892005123", "2025-11-23T10:00:05.123Z", "1763892005", "as seconds it means 2025-11-23T10:00:05Z: multiply the number by 1000"},
		{"us", "1763892005123456", "2025-11-23T10:00:05.123456Z", "1763892005123", "as milliseconds it means 2025-11-23T10:00:05Z: multiply the number by 1000"},
		{"ns", "1763892005123456789", "2025-11-23T10:00:05.123456Z", "1763892005", "multiply the number by 1000000000"},
		{"ns", "1763892005123999999", "2025-11-23T10:00:05.123999Z", "1763892005123", "multiply the number by 1000000,"},
	} {
		h := hubtest.New(1)
		g, err := New(Config{Hub: fleetscore.HubConfig{TimeUnit: c.unit}}, Deps{Hub: h})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		line := func(device string) string {
			return fmt.Sprintf(`{"TS":%s,"Device":"%s","Tag":"1","Value":1}`, c.number, device)
		}
		for _, body := range [][2]string{{"application/json", line("json")}, {"application/x-ndjson", line("first") + "\n" + line("second") + "\n" + line("third")},
			{"text/csv", "TS,Device,Tag,Value\n" + c.number + ",csv,1,1\n"}} {
			if status, p := post(g, body[0], body[1]); status != 200 {
				t.Errorf("%s %s: %d %+v", c.unit, c.number, status, p)
			}
		}
		for _, line := range stored(h) {
			if !strings.Contains(line, " "+c.want+" ") {
				t.Errorf("%s %s: %s, want %s", c.unit, c.number, line, c.want)
			}
		}
		if n := len(stored(h)); n != 5 {
			t.Errorf("%d are stored", n)
		}
		if status, p := post(g, "application/json", `{"TS":`+c.other+`,"Device":"a","Tag":"1","Value":1}`); status != 400 || !strings.Contains(p.Message, c.says) {
			t.Errorf("%s %s: %d %s, want %q", c.unit, c.other, status, p.Message, c.says)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestSources: a message carries the source of its readings, readings of two sources
// never share a message, and the silence of one source gives ticks of that source
// alone.
func TestSources(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(1)
		g, err := New(Config{Hub: testHub, Sources: []fleetscore.Source{fleetscore.SourceHTTP, "mqtt"}}, Deps{Hub: h})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()
		take := func(source fleetscore.Source) {
			t.Helper()
			line := fmt.Sprintf(`{"TS":%d,"Device":"a","Tag":"1","Value":1}`, time.Now().UnixMilli())
			if v, err := g.Take(source, NDJSON, []byte(line+"\nnothing\n")); err != nil || v.Accepted != 1 || v.Rejected != 1 || len(v.Reasons) != 1 || v.Reasons[0].Line != 2 {
				t.Errorf("verdicts %+v, %v", v, err)
			}
		}
		if _, err := g.Take("kafka", NDJSON, []byte("{}")); fleetscore.KindOf(err) != fleetscore.Invalid {
			t.Errorf("readings of an unknown source: %v", err)
		}
		take("mqtt")
		for range 60 { // a minute in which one source sends
			take(fleetscore.SourceHTTP)
			time.Sleep(time.Second)
		}
		readings, ticks := map[fleetscore.Source]int{}, map[fleetscore.Source]int{}
		for _, m := range h.Messages(0) {
			if m.Tick {
				ticks[m.Source]++
			} else {
				readings[m.Source] += m.Readings.Len()
			}
		}
		if readings["mqtt"] != 1 || readings[fleetscore.SourceHTTP] != 60 || ticks["mqtt"] == 0 || ticks[fleetscore.SourceHTTP] != 0 {
			t.Errorf("readings by source %v, ticks %v", readings, ticks)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
