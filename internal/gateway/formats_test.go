package gateway

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

// TestCSV: rows become readings, and verdicts name the file's lines.
func TestCSV(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	g := start(t, h, Config{Numbers: []string{"Value"}})
	body := "\ufeffTS,Device,Tag,Value,Unit\r\n2026-11-23T10:00:05Z,a,01,2.5,\"b\"\"ar, x\"\r\n\n2026-11-23T10:00:06Z,a,2,,\n2026-11-23T10:00:06Z,a,3\n2026-11-23T10:00:06Z,a,4,high,\n2026-11-23T10:00:06Z,\"a,5,1,\n"
	status, p := post(g, "text/csv; charset=utf-8", body)
	want := []Rejection{{5, "", "the row has 3 values for 5 columns"}, {6, "Value", "the value is a text; queries calculate with this column, so send a number"}, {7, "", "not CSV: a quote isn't closed in its line"}}
	if diff := cmp.Diff(want, p.Lines); status != 400 || p.Accepted != 2 || p.Rejected != 3 || diff != "" {
		t.Errorf("%d %+v\n%s", status, p, diff)
	}
	if got := strings.Join(stored(h), "\n"); !strings.Contains(got, "a/01 ") || !strings.Contains(got, `Value=2.5 Unit="b\"ar, x"`) {
		t.Errorf("stored %q", got)
	}
	for body, want := range map[string]string{"": "holds no reading", "TS,Device,Tag\n": "holds no reading", "TS,TS\n1,2\n": "twice", "\"TS\n": "quote"} {
		if status, p := post(g, "text/csv", body); status != 400 || !strings.Contains(p.Message, want) {
			t.Errorf("%q: %d %+v, want %s", body, status, p, want)
		}
	}
}

// influx sends lines and returns the answer's status and message.
func influx(g *Gateway, query, body string) (int, string) {
	r := httptest.NewRequest(http.MethodPost, "/api/v2/write?"+query, strings.NewReader(body))
	w := httptest.NewRecorder()
	g.ServeInflux(w, r)
	var p influxProblem
	_ = json.Unmarshal(w.Body.Bytes(), &p) // 204 has no body
	return w.Code, p.Message
}

// TestInflux: lines of InfluxDB's line protocol become readings, with every kind of value, escape and precision.
func TestInflux(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	g := start(t, h, Config{Numbers: []string{"Value"}})
	for query, body := range map[string]string{
		"org=o&bucket=b": `# a comment
press,Device=a\ b,Tag=1 Value=21.5,n=-3i,u=4u,ok=t,text="x \"y\" \\ , =" 1763892005000000001` + "\r\n",
		"precision=s":  `m\,1,Tag=2,Device=\=b,measurement=own Value=1e3 1763892005`,
		"precision=ms": "m,Device=c,Tag=3 Value=1 1763892005123",
		"precision=us": "m,Device=d,Tag=3 Value=1 1763892005123456",
		"db=x":         "m,Device=now,Tag=3 Value=1",
	} {
		if status, text := influx(g, query, body); status != http.StatusNoContent {
			t.Errorf("%s: %d %s", query, status, text)
		}
	}
	got := strings.Join(stored(h), "\n")
	for _, want := range []string{"a b/1 2025-11-23T10:00:05", `measurement="press"`, "Value=21.5", "n=-3", "u=4", "ok=1", `text="x \"y\" \\ , ="`,
		"=b/2 2025-11-23T10:00:05", `measurement="own"`, "Value=1000", "c/3 2025-11-23T10:00:05.123", "d/3 2025-11-23T10:00:05.123456", "now/3 " + time.Now().UTC().Format("2006-")} {
		if !strings.Contains(got, want) {
			t.Errorf("%q isn't stored:\n%q", want, got)
		}
	}
	for body, want := range map[string]string{
		"m":                            "the fields are missing",
		",a=b v=1":                     "the measurement is missing",
		"m,a v=1":                      "tag isn't written as name=value",
		"m,a= v=1":                     "the tag has no value",
		"m v":                          "field isn't written as name=value",
		"m v=":                         "neither a number",
		"m v=1x":                       "neither a number",
		"m v=NaN":                      "neither a number",
		"m v=0x1p3":                    "neither a number",
		"m v=1.5i":                     "not a whole number",
		"m v=\"a":                      "quote isn't closed",
		"m v=\"a\"b":                   "text follows a quoted value",
		"m v=1 yesterday":              "timestamp",
		"m v=1 9223372036854775808":    "timestamp",
		"m,Device=a,Tag=1 Value=\"x\"": "queries calculate with this column",
		"m,Device=a v=1":               "Tag",
		"\n\nm,Device=a,Tag=1 v":       "line 3",
	} {
		if status, text := influx(g, "", body); status != 400 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %q, want %q", body, status, text, want)
		}
	}
	if status, text := influx(g, "precision=days", "m v=1"); status != 400 || !strings.Contains(text, "days") {
		t.Errorf("precision: %d %s", status, text)
	}
}

// TestCloudEvents: single events, batches and IoT Hub's are taken; an event that is delivered
// twice has the same message id; verdicts name the event.
func TestCloudEvents(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	g := start(t, h, Config{})
	event := func(id, kind, data string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/press","type":%q,"time":"2026-11-23T10:00:07Z",%s}`, id, kind, data)
	}
	single := event("1", "reading", `"data":{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":1}`)
	for range 2 {
		if status, p := post(g, "application/cloudevents+json; charset=utf-8", single); status != 200 {
			t.Fatalf("%d %+v", status, p)
		}
	}
	batch := "[" + strings.Join([]string{
		event("2", "reading", `"data":[{"Device":"b","Tag":"1","Value":2},{"Device":"b","Tag":"2","Value":3,"_id":"mine"}]`),
		event("3", iotTelemetry, `"data":{"properties":{},"systemProperties":{"iothub-connection-device-id":"c","iothub-enqueuedtime":"2026-11-23T10:00:08Z"},"body":{"Tag":"1","Value":4}}`),
		event("4", iotTelemetry, `"data":{"systemProperties":{"iothub-connection-device-id":"d"},"body":"eyJUYWciOiIxIiwiVmFsdWUiOjV9"}`),
		event("5", "reading", `"data_base64":"eyJEZXZpY2UiOiJlIiwiVGFnIjoiMSJ9"`),
		event("6", "reading", `"data":"x"`), event("7", iotTelemetry, `"data":{"body":"%%"}`), `{"id":"8"}`, event("9", "reading", `"x":1`), `1`,
	}, ",") + "]"
	status, p := post(g, "application/cloudevents-batch+json", batch)
	var lines []int
	for _, l := range p.Lines {
		lines = append(lines, l.Line)
	}
	if status != 400 || p.Accepted != 5 || p.Rejected != 5 || !cmp.Equal(lines, []int{5, 6, 7, 8, 9}) {
		t.Errorf("%d %+v", status, p)
	}
	got := strings.Join(stored(h), "\n")
	for want, n := range map[string]int{"a/1 2026-11-23T10:00:05Z #/press#1 ": 2, "b/1 2026-11-23T10:00:07Z #/press#2 ": 1, "#mine": 1, "c/1 2026-11-23T10:00:08Z #/press#3 Value=4": 1, "d/1 ": 1, "e/1 ": 1} {
		if strings.Count(got, want) != n {
			t.Errorf("%q isn't there %d times:\n%q", want, n, got)
		}
	}
	if status, p := post(g, "application/cloudevents-batch+json", "[{]"); status != 400 || !strings.Contains(p.Message, "not a JSON array of events") {
		t.Errorf("%d %+v", status, p)
	}
	r := httptest.NewRequest(http.MethodOptions, "/hubs/hub/messages", nil)
	r.Header.Set("WebHook-Request-Origin", "eventgrid.azure.net")
	w := httptest.NewRecorder()
	Agree(w, r)
	if w.Code != 200 || w.Header().Get("WebHook-Allowed-Origin") != "eventgrid.azure.net" || w.Header().Get("WebHook-Allowed-Rate") != "*" {
		t.Errorf("handshake: %d %v", w.Code, w.Header())
	}
}

// TestCompressed: gzip and zstd are taken with every format, and what decompresses to too much is refused.
func TestCompressed(t *testing.T) {
	t.Parallel()
	compress := map[string]func(io.Writer) io.WriteCloser{
		"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	}
	for encoding, writer := range compress {
		h := hubtest.New(1)
		g := start(t, h, Config{MaxBodyBytes: 1 << 20})
		send := func(text []byte) int {
			var b bytes.Buffer
			z := writer(&b)
			if _, err := z.Write(text); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodPost, "/hubs/hub/messages", &b)
			r.Header.Set("Content-Type", "text/csv")
			r.Header.Set("Content-Encoding", encoding)
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			return w.Code
		}
		if status := send([]byte("TS,Device,Tag,Value\n2026-11-23T10:00:05Z,a,1,1\n")); status != 200 || len(stored(h)) != 1 {
			t.Errorf("%s: %d, stored %q", encoding, status, stored(h))
		}
		if status := send(bytes.Repeat([]byte(" "), 64<<20)); status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s of 64 MiB: %d", encoding, status)
		}
		r := httptest.NewRequest(http.MethodPost, "/hubs/hub/messages", strings.NewReader("no such thing"))
		r.Header.Set("Content-Type", "text/csv")
		r.Header.Set("Content-Encoding", encoding)
		w := httptest.NewRecorder()
		if g.ServeHTTP(w, r); w.Code != 400 {
			t.Errorf("text that isn't %s: %d", encoding, w.Code)
		}
		if used := g.intake.used.Load(); used != 0 {
			t.Errorf("%s: %d bytes stay counted", encoding, used)
		}
	}
}

// TestTooManyWait: while the queries are too far behind, senders of each format get 429 with a time to wait.
func TestTooManyWait(t *testing.T) {
	t.Parallel()
	g, err := New(Config{Hub: testHub}, Deps{Hub: hubtest.New(1), Full: func() string { return "too many readings wait" }})
	if err != nil {
		t.Fatal(err)
	}
	for path, serve := range map[string]http.HandlerFunc{"/hubs/hub/messages": g.ServeHTTP, "/write": g.ServeInflux} {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		if serve(w, r); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "10" || !strings.Contains(w.Body.String(), "too many readings wait") {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
}

// FuzzLines: whatever is translated becomes as many lines as are counted, and verdicts are
// in the order of lines.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"", "TS,Device\n1,2\n", "\"a\"\"b\",c\r\n1,2", "m,a=b v=1,w=\"x\" 1", `m\ ,\==\, v=t`, `[{"specversion":"1.0","id":"1","source":"s","type":"t","data":[{},{"a":1}]}]`, `{"specversion":"1.0","id":"1","source":"s","type":"` + iotTelemetry + `","data":{"body":"e30="}}`,
		`[{"id":"1","topic":"t","subject":"s","eventType":"e","eventTime":"2026-11-23T10:00:05Z","data":{"validationCode":"x"}}]`,
		`[{"Body":"{}{}[{}]"},{"Body":{"a":1}},{"Body":"e30=","IsBodyBase64":true,"BrokerProperties":{"MessageId":"1"}}]`} {
		f.Add([]byte(s))
	}
	g, err := New(Config{Hub: testHub}, Deps{Hub: hubtest.New(1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var all [7]Lines
		all[0].CSV(body, nil, testHub)
		all[1].Influx(body, 1, testHub)
		all[2].CloudEvents(body, true, testHub)
		all[3].CloudEvents(body, false, testHub)
		all[4].HubsEvents(body)
		all[5].HubsEvent(1, body, "id")
		all[6].GridEvents(body, testHub)
		validationCode(body)
		for i := range all {
			l := &all[i]
			if n := bytes.Count(l.Text, []byte("\n")); n != l.Len() {
				t.Fatalf("form %d: %q became %d lines, said to be %d: %q", i, body, n, l.Len(), l.Text)
			}
			out := newParser(g.cfg, newShared(&g.partition, 1)).lines(l.Text, time.Now())
			l.adjust(out)
			if out.accepted+out.rejected != l.Len() {
				t.Fatalf("form %d: %q became %q: %d accepted, %d rejected", i, body, l.Text, out.accepted, out.rejected)
			}
		}
	})
}

// sendHubs sends a body as a sender of Event Hubs does, and returns the status and the text of the answer.
func sendHubs(g *Gateway, path, media, properties, body string) (int, string) {
	mux := http.NewServeMux()
	for _, p := range []string{"POST /{hub}/messages", "POST /{hub}/partitions/{partition}/messages", "POST /{hub}/publishers/{publisher}/messages"} {
		mux.HandleFunc(p, g.ServeEventHubs)
	}
	r := httptest.NewRequest(http.MethodPost, path+"?timeout=60&api-version=2014-01", strings.NewReader(body))
	r.Header.Set("Content-Type", media)
	if properties != "" {
		r.Header.Set("BrokerProperties", properties)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// TestEventHubs: an event, and a batch of events, become readings; what is wrong with one is said as the service says it.
func TestEventHubs(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	g := start(t, h, Config{Hub: fleetscore.HubConfig{EventHubs: &fleetscore.EventHubsConfig{Name: "Readings"}}, Numbers: []string{"Value"}})
	const atom, batch = "application/atom+xml;type=entry;charset=utf-8", "application/vnd.microsoft.servicebus.json"
	one := func(device string, more string) string {
		return fmt.Sprintf(`{"TS":"2026-11-23T10:00:05Z","Device":"%s","Tag":"t","Value":1%s}`, device, more)
	}
	quoted := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, c := range []struct{ path, media, properties, body string }{
		{"/readings/messages", atom, "", one("plain", "")},
		{"/READINGS/messages", "", `{"PartitionKey":"x","MessageId":"m1"}`, one("id", "")},
		{"/readings/messages", "", `{'MessageId': 'm2'}`, one("python", "")},
		{"/readings/partitions/3/messages", "application/json", "", "[" + one("list-1", "") + ",\n" + one("list-2", "") + "]"},
		{"/readings/publishers/p/messages", "", `{"MessageId":"m3"}`, one("lines-1", "") + "\r\n" + one("lines-2", `,"_id":"own"`)},
		{"/readings/messages", batch, "", `[{"Body":` + quoted(one("batch-1", "")) + `,"BrokerProperties":{"MessageId":"b1"},"UserProperties":{"Alert":"wind"}},{"Body":` + one("batch-2", "") + `},{"Body":"` +
			base64.StdEncoding.EncodeToString([]byte(one("batch-3", ""))) + `","IsBodyBase64":true}]`},
	} {
		if status, text := sendHubs(g, c.path, c.media, c.properties, c.body); status != http.StatusCreated || text != "" {
			t.Errorf("%s %s: %d %s", c.path, c.body, status, text)
		}
	}
	got := strings.Join(stored(h), "\n")
	for _, want := range []string{"plain/t ", "id/t ", "python/t ", "list-1/t ", "list-2/t ", "lines-1/t ", "lines-2/t ", "batch-1/t ", "batch-2/t ", "batch-3/t ", "m1", "m2", "m3", "own", "b1"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q isn't stored:\n%s", want, got)
		}
	}
	for _, c := range []struct {
		path, media, properties, body string
		status                        int
		want                          string
	}{
		{"/other/messages", atom, "", one("a", ""), 404, `there is no event hub &#34;other&#34;`},
		{"/readings/partitions/x/messages", atom, "", one("a", ""), 400, "is not a number"},
		{"/readings/messages", atom, "{", one("a", ""), 400, "BrokerProperties is not JSON"},
		{"/readings/messages", atom, "", "", 400, "the event has no body"},
		{"/readings/messages", atom, "", one("b", "") + "{", 400, "1 of 2 readings is malformed; the other one is stored"},
		{"/readings/messages", atom, "", "17", 400, "not a JSON object"},
		{"/readings/messages", atom, "", `{"Device":"a","Tag":"t"}`, 400, "the event time is missing"},
		{"/readings/messages", batch, "", `{"Body":"x"}`, 400, "not a JSON array of events"},
		{"/readings/messages", batch, "", `[{"Body":"x"},7,{"Body":"?","IsBodyBase64":true}]`, 400, "all 3 readings are malformed"},
		{"/readings/messages", batch, "", `[]`, 400, "holds no reading"},
	} {
		status, text := sendHubs(g, c.path, c.media, c.properties, c.body)
		if start := fmt.Sprintf("<Error><Code>%d</Code><Detail>", c.status); status != c.status || !strings.HasPrefix(text, start) || !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %d %s, want %q", c.path, c.body, status, text, c.want)
		}
	}
	now := start(t, h, Config{Hub: fleetscore.HubConfig{EventHubs: &fleetscore.EventHubsConfig{ArrivalTime: true}}})
	if status, text := sendHubs(now, "/hub/messages", atom, "", `{"Device":"now","Tag":"t"}`); status != 201 {
		t.Errorf("%d %s", status, text)
	}
	full, err := New(Config{Hub: testHub}, Deps{Hub: h, Full: func() string { return "full" }})
	if err != nil {
		t.Fatal(err)
	}
	if status, text := sendHubs(full, "/hub/messages", atom, "", one("a", "")); status != 503 || !strings.Contains(text, "full") {
		t.Errorf("%d %s", status, text)
	}
}

// TestEventGrid: events in Event Grid's own schema carry readings, an event that is delivered again has the same message
// ids, and its question whether it may send is answered.
func TestEventGrid(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	g := start(t, h, Config{})
	send := func(kind, body string) (int, string) {
		r := httptest.NewRequest(http.MethodPost, "/hubs/hub/messages", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		r.Header.Set("aeg-event-type", kind)
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	event := func(kind, data string) string {
		return fmt.Sprintf(`{"id":"7","topic":"/t","subject":"s","eventType":"%s","eventTime":"2026-11-23T10:00:05.5Z","dataVersion":"1","metadataVersion":"1","data":%s}`, kind, data)
	}
	if status, text := send("Notification", "["+event("Press.Reading", `[{"Device":"a","Tag":"1","Value":1},{"Device":"a","Tag":"2","Value":2}]`)+","+
		event("Microsoft.Devices.DeviceTelemetry", `{"body":{"Tag":"3","Value":3},"systemProperties":{"iothub-connection-device-id":"press","iothub-enqueuedtime":"2026-11-23T10:00:06Z"}}`)+"]"); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	want := "a/1 2026-11-23T10:00:05.5Z #/ts#7 Value=1\na/2 2026-11-23T10:00:05.5Z #/ts#7/1 Value=2\npress/3 2026-11-23T10:00:06Z #/ts#7 Value=3"
	if diff := cmp.Diff(want, strings.Join(stored(h), "\n")); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	question := event("Microsoft.EventGrid.SubscriptionValidationEvent", `{"validationCode":"512d38b6","validationUrl":"https://x"}`)
	if status, text := send("SubscriptionValidation", "["+question+"]"); status != 200 || !strings.Contains(text, `"validationResponse":"512d38b6"`) {
		t.Errorf("%d %s", status, text)
	}
	for body, want := range map[string]string{"[": "not a JSON array of events", event("x", "{}"): "doesn't begin with [", "[7]": "not a JSON object of an event", `[{"id":"1"}]`: "lacks id, source or type", "[]": "holds no reading"} {
		if status, text := send("Notification", body); status != 400 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %s", body, status, text, want)
		}
	}
}

// TestWays: what came is told by the way by which it came.
func TestWays(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	g := start(t, h, Config{Sources: []fleetscore.Source{fleetscore.SourceHTTP, fleetscore.SourceMQTT}})
	const reading = `{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"1","Value":1}`
	post(g, "application/x-ndjson", reading+"\n"+reading+"\n{}")
	post(g, "application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"s","type":"t","data":`+reading+`}`)
	influx(g, "", "m,Device=c,Tag=3 Value=1")
	sendHubs(g, "/hub/messages", "application/atom+xml", "", reading)
	if _, err := g.Take(fleetscore.SourceMQTT, JSON, []byte(reading)); err != nil {
		t.Fatal(err)
	}
	g.Reject(WayMQTT)
	p, err := g.Begin(fleetscore.SourceHTTP, Message{Format: JSON, Body: []byte(reading), Way: WayAgain})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	got := map[Way]string{}
	var sum Stats
	stats := g.Stats()
	for _, w := range stats.Ways {
		got[w.Way] = fmt.Sprintf("%d %d %s", w.Accepted, w.Rejected, w.Newest.Format("15:04:05"))
		if w.FirstArrival.IsZero() || w.LastArrival.Before(w.FirstArrival) {
			t.Errorf("%+v", w)
		}
	}
	want := map[Way]string{WayHTTP: "2 1 10:00:05", WayCloudEvents: "1 0 10:00:05", WayInflux: "1 0 00:00:00", WayEventHubs: "1 0 10:00:05", WayMQTT: "1 1 10:00:05", WayAgain: "1 0 10:00:05"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if sum.Add(stats); stats.Accepted != 7 || stats.Rejected != 2 || sum.Accepted != 7 || len(sum.Ways) != len(want) || !sum.FirstArrival.Equal(stats.FirstArrival) {
		t.Errorf("all together are %+v, added to nothing %+v", stats, sum)
	}
	if sum.Add(stats); sum.Accepted != 14 || sum.Ways[0].Accepted != 4 || len(sum.Ways) != len(want) {
		t.Errorf("twice that is %+v", sum)
	}
}

// TestJudged: what an answer says of one reading is in the singular.
func TestJudged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		accepted, rejected int
		want               string
	}{
		{0, 1, "the reading is malformed"},
		{0, 2, "all 2 readings are malformed; none is stored"},
		{1, 1, "1 of 2 readings is malformed; the other one is stored"},
		{1, 2, "2 of 3 readings are malformed; the other one is stored"},
		{2, 1, "1 of 3 readings is malformed; the other 2 are stored"},
		{2, 2, "2 of 4 readings are malformed; the other 2 are stored"},
	} {
		if got := judged(tt.accepted, tt.rejected); got != tt.want {
			t.Errorf("%d accepted, %d rejected: %q, want %q", tt.accepted, tt.rejected, got, tt.want)
		}
	}
}
