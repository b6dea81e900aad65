package gateway

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testHub = fleetscore.HubConfig{Key: []string{"Device", "Tag"}, Time: "TS", IdleAfter: fleetscore.Duration(5 * time.Second)}

// start runs a gateway until the test ends.
func start(t *testing.T, h hub.Hub, cfg Config) *Gateway {
	t.Helper()
	own, events := cfg.Hub.OwnKey, cfg.Hub.EventHubs
	cfg.Hub = testHub
	cfg.Hub.OwnKey, cfg.Hub.EventHubs = own, events
	g, err := New(cfg, Deps{Hub: h})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return g
}

func post(g http.Handler, contentType, body string) (int, Problem) {
	r := httptest.NewRequest(http.MethodPost, "/hubs/hub/messages", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		p.Message = "no JSON: " + w.Body.String()
	}
	return w.Code, p
}

// stored lists what a hub holds, a line per reading.
func stored(h *hubtest.Memory) (out []string) {
	for p := range h.Partitions() {
		for _, m := range h.Messages(p) {
			if m.Tick {
				continue
			}
			r := m.Readings
			for i := range r.Times {
				line := fmt.Sprint(r.Keys[r.KeyIndex[i]], " ", r.Times[i])
				if r.IDs != nil && r.IDs[i] != "" {
					line += " #" + r.IDs[i]
				}
				for _, c := range r.Columns {
					switch {
					case c.Strings != nil && (c.Present == nil || c.Present[i]):
						line += fmt.Sprintf(" %s=%q", c.Name, c.Strings[i])
					case c.Strings == nil && c.Numbers[i] == c.Numbers[i]:
						line += fmt.Sprintf(" %s=%v", c.Name, c.Numbers[i])
					}
				}
				out = append(out, line)
			}
		}
	}
	return out
}

func TestReadings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		media, body string
		status      int
		want        []string
		lines       []Rejection
	}{
		"lines": {"application/x-ndjson", `{"TS":"2026-11-23T10:00:05.123Z","Device":"a","Tag":1,"Value":1.5}` + "\r\n\n" +
			`{"TS":1795428000000,"Device":"a","Tag":"1","Value":-2e3,"On":true,"Off":false,"Note":"h\u00e9","None":null,"_id":"m1"}`, 200,
			[]string{"a/1 2026-11-23T10:00:05.123Z Value=1.5", `a/1 2026-11-23T10:00:00Z #m1 Value=-2000 On=1 Off=0 Note="hé"`}, nil},
		"object": {"application/json", "{\n \"TS\": \"2026-11-23 10:00:05\", \"Device\": \"a\", \"Tag\": 1.50 }", 200,
			[]string{"a/1.50 2026-11-23T10:00:05Z"}, nil},
		"array": {"application/json; charset=utf-8", `[{"TS":"2026-11-23T10:00:05+02:00","Device":"a","Tag":"x","V":1}, 7, {"TS":"2026-11-23T10:00:06Z","Device":"a","Tag":"x","V":"text"}]`, 400,
			[]string{"a/x 2026-11-23T08:00:05Z V=1", `a/x 2026-11-23T10:00:06Z V="text"`}, []Rejection{{2, "", "not a JSON object"}}},
		"bad lines": {"application/x-ndjson", strings.Join([]string{
			`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":1}`,
			`{"TS":"yesterday","Device":"a","Tag":"1"}`,
			`{"Device":"a","Tag":"1"}`,
			`{"TS":"2026-11-23T10:00:05Z","Tag":"1"}`,
			`{"TS":"2026-11-23T10:00:05Z","Device":"","Tag":"1"}`,
			`{"TS":"2026-11-23T10:00:05Z","Device":[1],"Tag":"1"}`,
			`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":1e999}`,
			`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":{"x":1}}`,
			`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":1,"Value":2}`,
			`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1"`,
			`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1"} {}`,
			`{"TS":"2126-11-23T10:00:05Z","Device":"a","Tag":"1"}`,
			`[]`, `nonsense`, "{\"TS\":\"2026-11-23T10:00:05Z\",\"Device\":\"\xff\",\"Tag\":\"1\"}",
			`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":"2"}`,
			`{"TS":"1969-12-31T23:59:59Z","Device":"a","Tag":"1"}`,
			`{"TS":"2026-11-23T10:00:07Z","Device":"a","Tag":"1","Value":2}`}, "\n"), 400,
			[]string{"a/1 2026-11-23T10:00:05Z Value=1", "a/1 2026-11-23T10:00:07Z Value=2"},
			[]Rejection{
				{2, "TS", "not a time such as 2026-11-23T10:00:05.123Z, or milliseconds since 1970"},
				{3, "TS", "the event time is missing"}, {4, "Device", "the key column is missing"},
				{5, "Device", "the key is empty"}, {6, "Device", "a key must be a text or a number"},
				{7, "Value", "the number 1e999 doesn't fit into 64 bits"},
				{8, "Value", "the value is an object or array; send numbers, texts, true or false"},
				{9, "", "not a JSON object: duplicate object member name at byte 63"},
				{10, "", "not a JSON object: the text ends too early"},
				{11, "", "more follows the JSON object; write one object per line"},
				{12, "TS", "the time is more than 5m0s ahead of this server's clock"},
				{13, "", "not a JSON object"}, {14, "", "not a JSON object: invalid character 'o' in literal null (expecting 'u') at byte 2"},
				{15, "", "not a JSON object: invalid UTF-8 at byte 40"},
				{16, "Value", "the value is a text; queries calculate with this column, so send a number"},
				{17, "TS", "the time is before 1970: is the device's clock set?"},
			}},
		"broken array": {"application/json", `[{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1"},{"TS":`, 400,
			[]string{"a/1 2026-11-23T10:00:05Z"}, []Rejection{{2, "", "not a JSON object: the text ends too early; nothing after it was read"}}},
		"empty":         {"application/json", "", 400, nil, []Rejection{{1, "", "not a JSON object: the text ends too early; nothing after it was read"}}},
		"empty lines":   {"application/x-ndjson", " \n\n", 400, nil, nil},
		"wrong content": {"text/plain", "TS,Device\n", 415, nil, nil},
		"too large":     {"application/json", strings.Repeat(" ", 70<<10), 413, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := hubtest.New(1)
			g := start(t, h, Config{MaxBodyBytes: 64 << 10, Numbers: []string{"Value"}})
			status, p := post(g, c.media, c.body)
			if status != c.status {
				t.Errorf("status %d, want %d: %+v", status, c.status, p)
			}
			if d := cmp.Diff(c.want, stored(h)); d != "" {
				t.Errorf("stored (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.lines, p.Lines); d != "" {
				t.Errorf("verdicts (-want +got):\n%s", d)
			}
			if p.Accepted != len(c.want) || p.Rejected != len(c.lines) {
				t.Errorf("answer counts %d accepted, %d rejected", p.Accepted, p.Rejected)
			}
			if len(c.lines) > 0 && !strings.Contains(p.Message, c.lines[0].String()) {
				t.Errorf("the message %q doesn't say what is wrong with the first reading, want %q", p.Message, c.lines[0])
			}
		})
	}
}

func TestGzip(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	g := start(t, h, Config{MaxBodyBytes: 64 << 10})
	send := func(body string) int {
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		if _, err := z.Write([]byte(body)); err != nil || z.Close() != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/", &zipped)
		r.Header.Set("Content-Type", "application/x-ndjson")
		r.Header.Set("Content-Encoding", "gzip")
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w.Code
	}
	line := `{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":1}` + "\n"
	if got := send(strings.Repeat(line, 500)); got != 200 || len(stored(h)) != 500 {
		t.Errorf("status %d, %d readings stored", got, len(stored(h)))
	}
	if got := send(strings.Repeat(line, 5000)); got != 413 {
		t.Errorf("a body over the limit once it is decompressed: status %d", got)
	}
	if n := g.intake.used.Load(); n != 0 {
		t.Errorf("%d bytes are still counted as queued", n)
	}
}

// TestNothingAcknowledgedIsLost sends from many clients while the hub fails now and
// then: each reading that was answered with 200 is stored.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	h := hubtest.New(4)
	g := start(t, h, Config{})
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	var wg sync.WaitGroup
	for client := range 8 {
		wg.Go(func() {
			for n := range 50 {
				var body strings.Builder
				var ids []string
				for i := range 10 {
					id := fmt.Sprintf("%d-%d-%d", client, n, i)
					ids = append(ids, id)
					fmt.Fprintf(&body, `{"TS":"2026-11-23T10:00:05Z","Device":"%d","Tag":"%d","_id":"%s","V%d":%d}`+"\n", client, i, id, n%3, n)
				}
				if n == 20 && client == 0 {
					h.FailAppends(fleetscore.Errorf(fleetscore.Exhausted, "append", "", "the disk is full"))
				}
				if n == 30 && client == 0 {
					h.FailAppends(nil)
				}
				status, p := post(g, "application/x-ndjson", body.String())
				if status != 200 && status != 503 {
					t.Errorf("status %d: %+v", status, p)
				}
				if failing := n >= 20 && n < 30; client == 0 && !failing && status != 200 {
					t.Errorf("request %d: status %d while the hub works", n, status)
				}
				if status == 200 {
					mu.Lock()
					for _, id := range ids {
						acknowledged[id] = true
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	there := map[string]bool{}
	for p, shards := range fleetscore.SplitShards(4) {
		for _, m := range h.Messages(p) {
			for i := range m.Readings.Times {
				there[m.Readings.IDs[i]] = true
				if k := m.Readings.Keys[m.Readings.KeyIndex[i]]; !shards.Contains(k.Shard()) {
					t.Errorf("key %s lies in partition %d", k, p)
				}
			}
		}
	}
	for id := range acknowledged {
		if !there[id] {
			t.Errorf("reading %s was acknowledged and isn't stored", id)
		}
	}
}

// TestTicks: ticks come after the partition was idle while everything worked. No tick
// comes while the hub fails, nor right after a pause of the process.
func TestTicks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(1)
		ctx, cancel := context.WithCancel(t.Context())
		g, err := New(Config{Hub: testHub}, Deps{Hub: h})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()
		ticks := func() (n int) {
			for _, m := range h.Messages(0) {
				if m.Tick {
					n++
				}
			}
			return n
		}
		time.Sleep(4900 * time.Millisecond)
		if n := ticks(); n != 0 {
			t.Errorf("%d ticks before the partition was idle", n)
		}
		time.Sleep(5 * time.Second)
		before := ticks()
		if before == 0 {
			t.Error("no tick after 10 s of silence")
		}
		if status, p := post(g, "application/json", `{"TS":"2000-01-01T00:00:00Z","Device":"a","Tag":"1"}`); status != 200 {
			t.Error(status, p)
		}
		time.Sleep(4900 * time.Millisecond)
		if n := ticks(); n != before {
			t.Errorf("%d ticks right after a reading", n-before)
		}
		h.FailAppends(errors.New("broken"))
		time.Sleep(time.Minute)
		h.FailAppends(nil)
		time.Sleep(4900 * time.Millisecond)
		if n := ticks(); n != before {
			t.Errorf("%d ticks though the hub was broken", n-before)
		}
		time.Sleep(10 * time.Second)
		if n := ticks(); n == before {
			t.Error("no tick after the hub worked again")
		}
		for i, m := range h.Messages(0)[1:] {
			if m.Arrived < h.Messages(0)[i].Arrived {
				t.Error("arrival times go back")
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if status, _ := post(g, "application/json", `{"TS":"2000-01-01T00:00:00Z","Device":"a","Tag":"1"}`); status != 503 {
			t.Errorf("status %d after the end", status)
		}
	})
}

// FuzzBody feeds bodies to both parsers: counts and batches must agree, and
// whatever was accepted must survive the hub's codec.
func FuzzBody(f *testing.F) {
	f.Add(`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":1,"Value":1.5,"s":"x"}` + "\n" + `{"TS":1,"Device":"a","Tag":1,"s":2,"_id":3}`)
	f.Add(`[{"TS":1,"Device":"a","Tag":1},{"TS":-1e3,"Device":"b","Tag":"\u001f"}]`)
	f.Add(`{"TS":"2026-11-23T10:00:05Z"`)
	var partition [fleetscore.Shards]int
	for i := range partition {
		partition[i] = i / 128
	}
	cfg := Config{Hub: testHub}.Defaults()
	f.Fuzz(func(t *testing.T, body string) {
		p := newParser(cfg, newShared(&partition, 2))
		for _, parse := range []func(*parser, []byte, time.Time) *parsed{(*parser).lines, (*parser).value} {
			out := parse(p, []byte(body), time.Unix(1.8e9, 0))
			n := 0
			for _, list := range out.batches {
				for _, b := range list {
					n += b.Len()
					_, r, err := hub.Decode(hub.Encode(nil, hubtest.At(1), b.finish(&numbering{})))
					if err != nil || r.Len() != b.Len() {
						t.Errorf("a batch doesn't survive the codec: %v", err)
					}
				}
			}
			if n != out.accepted || min(out.rejected, maxRejections) != len(out.reasons) {
				t.Errorf("%d accepted, %d in batches; %d rejected, %d reasons", out.accepted, n, out.rejected, len(out.reasons))
			}
		}
	})
}

func BenchmarkLines(b *testing.B) {
	var partition [fleetscore.Shards]int
	p := newParser(Config{Hub: testHub}.Defaults(), newShared(&partition, 1))
	var body []byte
	for i := range 1000 {
		body = fmt.Appendf(body, `{"TS":"2026-11-23T10:%02d:%02d.%03dZ","Device":"dev-%04d","Tag":"tag-%02d","Value":%.3f}`+"\n", i/60%60, i%60, i, i/10, i%10, float64(i)/7)
	}
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		out := p.lines(body, time.Now())
		if out.accepted != 1000 {
			b.Fatal(out.reasons)
		}
		p.shared.release(out.batches[0][0])
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "readings/s")
}

// TestDefectInParsing: a panic while parsing fails only its own request; parsers and
// ticks go on.
func TestDefectInParsing(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	g := start(t, h, Config{})
	for range 3 * cap(g.parsers) {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was hidden")
				}
			}()
			_, _, _ = g.parse(func(*parser, []byte, time.Time) *parsed { panic("a defect") }, Message{}, nil)
		}()
	}
	if n := g.parsing.len(); n != 0 {
		t.Errorf("%d requests still count as being parsed, so that no tick would come any more", n)
	}
	if status, p := post(g, "application/x-ndjson", `{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":1}`); status != 200 {
		t.Errorf("the next request: %d %+v", status, p)
	}
}

// TestClientGone: readings that wait to be stored are counted until they are stored,
// even if their client has gone.
func TestClientGone(t *testing.T) {
	t.Parallel()
	slow := &slowHub{Hub: hubtest.New(1), begun: make(chan struct{}), proceed: make(chan struct{})}
	g := start(t, slow, Config{})
	ctx, leave := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/hubs/hub/messages", strings.NewReader(`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":1}`))
	r.Header.Set("Content-Type", "application/x-ndjson")
	w, done := httptest.NewRecorder(), make(chan struct{})
	go func() {
		defer close(done)
		g.ServeHTTP(w, r)
	}()
	<-slow.begun
	leave()
	if g.intake.used.Load() == 0 {
		t.Error("nothing counts as queued while it is stored")
	}
	close(slow.proceed)
	<-done
	if w.Code != 200 || g.intake.used.Load() != 0 {
		t.Errorf("status %d, %d bytes queued", w.Code, g.intake.used.Load())
	}
}

// slowHub stores when it is told to.
type slowHub struct {
	hub.Hub
	begun, proceed chan struct{}
}

func (h *slowHub) Append(ctx context.Context, partition int, stamp hub.Stamp, r ...*fleetscore.Readings) (uint64, error) {
	if r != nil { // no tick
		close(h.begun)
		<-h.proceed
	}
	return h.Hub.Append(ctx, partition, stamp, r...)
}
