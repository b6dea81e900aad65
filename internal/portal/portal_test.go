package portal

import (
	"context"
	"fmt"
	"html"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/logs"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/schedule"
	"github.com/fleetscore/fleetscore/internal/sensor"
	"github.com/fleetscore/fleetscore/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const hostile = `<script>alert("1")</script>`

// oneLog is one log with a hostile line.
type oneLog struct{}

func (oneLog) List(context.Context, fleetscore.JobID) ([]logs.Ref, error) {
	return []logs.Ref{{Task: "j.000", Attempt: 1, Stream: "stderr", State: "succeeded", SizeBytes: int64(len(hostile))}}, nil
}

func (oneLog) Open(context.Context, fleetscore.JobID, int, int, string, int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(hostile)), nil
}

// someSensors are two sensors, of which one has faults.
type someSensors struct{}

func (someSensors) List(q sensor.Query) ([]sensor.Sensor, string, int64) {
	at, x, rate := noon.Add(-time.Hour), -61.0, 12.5
	out := []sensor.Sensor{{Dataset: "readings", Key: []string{"1", hostile}, First: &at, Last: &at, Silent: new(float64), Rows: 2, PerMinute: &rate, Values: map[string]*float64{hostile: &x, "Value": nil}, Skew: &x, Heard: &at, Flat: 7200,
		Pipelines: []sensor.Share{{Pipeline: "p", Share: 0.25}, {Pipeline: "candidate", Share: 0.5}}}, {Dataset: "readings", Key: []string{"2", "x"}}}
	if q.Silent > 0 || q.Flat > 0 || q.Skewed > 0 {
		return out[:1], "readings/1", 17
	}
	return out, "", 2
}

func (someSensors) Counts() []sensor.Counts {
	return []sensor.Counts{{Dataset: "readings", Known: 2, Silent: 1, Flat: 1, Skewed: 1, Until: &noon}}
}

// world is a portal over a ledger and a store with one job of the given number of
// sensors, with ten rows each; every third row is an anomaly, every sixth a fault.
func world(t *testing.T, sensors int) http.Handler {
	t.Helper()
	return worldOver(t, sensors, func(b store.Bucket) store.Bucket { return b })
}

// worldOver is a world whose portal sees another bucket than the one that was filled.
func worldOver(t *testing.T, sensors int, seen func(store.Bucket) store.Bucket) http.Handler {
	t.Helper()
	ctx := t.Context()
	l, err := ledger.Open(ctx, filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Scale: fleetscore.ScaleConfig{Max: 2, CostPerHour: 0.5, Formula: "// " + hostile, EvaluationInterval: fleetscore.Duration(15 * time.Minute)}}},
		Pipelines: map[string]fleetscore.PipelineConfig{"p": {Dataset: "readings", Label: "Fault", Pool: "cpu",
			Schedule: fleetscore.ScheduleConfig{Cron: "30 2 * * *", Zone: "Asia/Kolkata"}}, "stopped": {Dataset: "readings", Pool: "cpu", Schedule: fleetscore.ScheduleConfig{Cron: "@daily"}},
			"candidate": {Dataset: "readings", Pool: "cpu", Shadow: "p", Schedule: fleetscore.ScheduleConfig{RunAfter: "p"}}}}
	if _, err := l.PutConfig(ctx, time.Now(), "text", cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := l.DecideSchedule(ctx, "stopped", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		v.State.Created, v.State.Paused = noon, noon
		return ledger.ScheduleDecision{State: v.State, Occurrences: []fleetscore.Occurrence{{Pipeline: "stopped", Due: noon, State: fleetscore.OccurrenceSkipped, Reason: hostile}}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.AddEvaluation(ctx, "cpu", autoscale.Evaluation{At: noon, Nodes: 2, Result: "$TargetDedicatedNodes=2;text=" + hostile,
		Problem: &autoscale.EvaluationError{Code: "Code", Message: "Line 1, Col 2: " + hostile, Hint: "bound it"}}); err != nil {
		t.Fatal(err)
	}
	for i := range 61 { // two nodes for half an hour, at last four
		if err := l.AddSample(ctx, "cpu", autoscale.Sample{At: noon.Add(time.Duration(i-60) * 30 * time.Second),
			Values: map[string]float64{"$CurrentDedicatedNodes": float64(2 + 2*(i/60))}}, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.UpdateNode(ctx, "cpu-node", func(n *fleetscore.Node) error {
		n.Pool, n.State, n.Started = "cpu", fleetscore.NodeIdle, noon
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	started, ended := noon.Add(-time.Minute), noon
	iv := fleetscore.Interval{From: noon.Add(-10 * time.Minute), To: noon}
	job := fleetscore.Job{ID: "j", Pipeline: "p", Interval: iv, State: fleetscore.JobSucceeded, Expected: int64(sensors), Priority: fleetscore.PriorityLow, Backfill: "b7", Rerun: &fleetscore.Rerun{Of: "before"}, Started: &started, Ended: &ended,
		Outcomes: fleetscore.Counts{fleetscore.Scored: int64(sensors)}}
	running := job
	running.ID, running.State, running.Ended = "running", fleetscore.JobRunning, nil
	for _, j := range []fleetscore.Job{job, running} {
		if err := ledgertest.Insert(ctx, l, j); err != nil {
			t.Fatal(err)
		}
	}
	keys := []string{"Device", "Tag"}
	p := &fleetscore.Predictions{Rows: fleetscore.Rows{TimeName: "TS", KeyNames: keys, ValueNames: []string{"Value", "Fault"}, Values: make([][]float64, 2)}}
	var items []fleetscore.Item
	for s := range sensors {
		k := fleetscore.Key(fmt.Sprintf("%04d\x1f%s", s, hostile))
		p.Keys, p.Models = append(p.Keys, k), append(p.Models, fleetscore.DigestOf(nil))
		items = append(items, fleetscore.Item{Key: k, Outcome: fleetscore.Scored, Rows: 10, Reason: hostile, Image: "box@sha256:0123456789abcdef"})
		for n := range 10 {
			p.KeyIndex = append(p.KeyIndex, uint32(s))
			p.Times = append(p.Times, fleetscore.MicrosOf(noon.Add(time.Duration(n-9)*time.Minute)))
			p.Values[0] = append(p.Values[0], float64(n*n))
			flag, fault := 0.0, 0.0
			if n%3 == 0 {
				flag = 1
			}
			if n%6 == 0 {
				fault = 1
			}
			p.Values[1], p.Prediction, p.Score = append(p.Values[1], fault), append(p.Prediction, flag), append(p.Score, -1)
		}
	}
	d := catalog.New(b).Predictions("p")
	if err := d.Create(ctx, catalog.PredictionSchema("TS", keys, p.ValueNames)); err != nil {
		t.Fatal(err)
	}
	files, err := d.WritePredictions(ctx, p, "j", 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.CommitPredictions(ctx, catalog.PredictionCommit{Job: "j", Interval: iv, Files: files}); err != nil {
		t.Fatal(err)
	}
	c := catalog.New(b).Coverage("p")
	if err := c.Create(ctx, catalog.ItemSchema(keys)); err != nil {
		t.Fatal(err)
	}
	if files, err = c.WriteItems(ctx, items, keys, "j", iv); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CommitItems(ctx, "j", iv, files, nil); err != nil {
		t.Fatal(err)
	}
	candidate := catalog.New(b) // its tables are there, and empty
	if err := candidate.Predictions("candidate").Create(ctx, catalog.PredictionSchema("TS", keys, p.ValueNames)); err != nil {
		t.Fatal(err)
	}
	if err := candidate.Coverage("candidate").Create(ctx, catalog.ItemSchema(keys)); err != nil {
		t.Fatal(err)
	}
	health := &obs.Health{}
	health.Report("hub", "the disk can't be written, because "+hostile)
	health.Warn("disk", "5 % are left")
	control, err := access.Open(ctx, access.Config{Open: true}, access.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Deps{Sensors: someSensors{}, Access: control, Ledger: l, Logs: oneLog{}, Store: seen(b), Now: func() time.Time { return noon.Add(time.Second) },
		Health: health,
		Servers: func(context.Context) ([]fleetscore.Server, error) {
			since := noon.Add(-time.Hour)
			return []fleetscore.Server{{Name: hostile, URL: "http://a", State: fleetscore.ServerLeads, LeadsSince: &since, Started: since, Seen: noon, Version: "1", Self: true},
				{Name: "b", State: fleetscore.ServerSilent, Started: since, Seen: noon.Add(-time.Minute)}}, nil
		},
		Gateway: func() gateway.Stats { return gateway.Stats{Taken: gateway.Taken{Accepted: 12345}} },
		Queries: func() []aggregator.Status {
			return []aggregator.Status{{Query: "q", Dataset: "readings", Problem: "the query stands, because " + hostile}}
		}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, address string) (int, string, http.Header) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, address, nil))
	return w.Code, w.Body.String(), w.Header()
}

// TestPages: every page shows its content, escapes texts from outside, allows the
// browser to run nothing, and is loaded again while something may change.
func TestPages(t *testing.T) {
	t.Parallel()
	h := world(t, 3)
	sensor := "/sensors/p?" + url.Values{"key": {"0001", hostile}}.Encode()
	for _, c := range []struct {
		address string
		status  int
		refresh bool
		want    []string
	}{
		{"/", 200, true, []string{"12\u202f345 accepted", "✗ stopped:", "✗ failing</span> <strong>hub</strong>: the disk can&#39;t be written", "⚠ warning</span> <strong>disk</strong>: 5 % are left", "1 of 2 nodes", `<a href="/pools/cpu">`, `<a href="/servers">`, `<a href="/sensors?dataset=readings&amp;show=silent" title="no row for ten minutes or longer">1 silent</a>`, "1 succeeded", "1 running", "Pipeline p: sensors in the last hour", `Pipeline candidate, <a href="/shadows/candidate">shadow of p</a>: sensors`, `href="` + html.EscapeString("/sensors/p?"+url.Values{"key": {"0002", hostile}}.Encode())}},
		{"/jobs/j", 200, false, []string{"3 scored", "0002/", `title="box@sha256:0123456789abcdef">box@sha256:0123456789ab</td>`, "Task 0, attempt 1", "1m0s", `scores sensors of <a href="/jobs/before">before</a> again`, "backfill b7", "priority low"}},
		{"/jobs/running", 200, true, []string{"running"}},
		{"/jobs/j?outcome=failed", 200, false, []string{"3 scored"}},
		{"/pools/cpu", 200, true, []string{"evaluated every 15m0s", "cpu-node", "$TargetDedicatedNodes=2;text=&lt;script&gt;", "✗ Code", "Line 1, Col 2: ", "bound it", "0 to 2 are allowed",
			`1.00</p><p class="dim">node-hours, cost 0.50, in 0.5 hours since 2026-11-23 11:30:00 UTC`, "compared with 4 nodes that are always on"}},
		{"/servers", 200, true, []string{"&lt;/script&gt; leads since", `title="2026-11-23 11:00:00 UTC">11:00:00`, "★ leads</span>", "✗ silent</span>", `title="2026-11-23 11:59:00 UTC"`, "shows this page"}},
		{"/pools/none", 404, false, []string{"there is no such pool"}},
		{sensor, 200, true, []string{"10 rows", "4 anomalies", "2 with an injected fault", `class="line" d="M`, "anomaly, 12:00:00 81", "injected fault, 11:57:00 36", "11:54:00"}},
		{"/sensors/p?key=none&key=x", 200, true, []string{"No predictions in the last hour"}},
		{"/sensors/p?over=24h0m0s&key=0001&key=" + url.QueryEscape(hostile), 200, true, []string{"10 rows", "last day: 10", `aria-current="true">day</a>`}},
		{"/sensors/p?key=none&key=x&over=2h", 400, false, []string{"can&#39;t be shown over this time"}},
		{"/shadows/candidate", 200, false, []string{"candidate, shadow of p", `<p class="big">3 of 3</p>`, "30 only p, 0 only candidate", "0002/"}},
		{"/shadows/p", 404, false, []string{"there is no shadow pipeline of this name"}},
		{"/sensors/q?key=1&key=x", 404, false, []string{"there is no pipeline"}},
		{"/sensors/..%2f..%2fledger?key=1", 404, false, []string{"can't be shown"}},
		{"/sensors/p%2f_coverage?key=1&key=x", 404, false, []string{"there is no pipeline"}},
		{"/sensors", 200, true, []string{`aria-current="true">2 sensors`, "1 silent", `&lt;/script&gt; -61`, "-1m1s", "2h0m0s", `<td class="n">12.5</td>`, "p 25.0 %, candidate 50.0 %", `<a href="/sensors/p?key=1&amp;key=%3Cscript`, "complete until 12:00:00", `<td class="id">2/x</td>`}},
		{"/sensors?show=skewed&dataset=readings", 200, true, []string{`aria-current="true">1 with wrong clocks`, `<a href="/sensors?after=readings%2F1&amp;dataset=readings&amp;show=skewed">next</a>`, "17 sensors"}},
		{"/sensors?show=all", 400, false, []string{"can&#39;t be listed by this"}},
		{"/sensors/p", 400, false, []string{"the address has no key"}},
		{"/jobs/none", 404, false, []string{"there is no such job"}},
		{"/nowhere", 404, false, []string{"there is no such page"}},
	} {
		status, text, header := get(h, c.address)
		if status != c.status {
			t.Errorf("%s: status %d, want %d\n%s", c.address, status, c.status, text)
		}
		for _, w := range c.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s lacks %q:\n%s", c.address, w, text)
			}
		}
		if strings.Contains(text, "<script") || strings.Contains(text, "ZgotmplZ") {
			t.Errorf("%s isn't escaped:\n%s", c.address, text)
		}
		if got := strings.Contains(text, `http-equiv="refresh"`); got != c.refresh {
			t.Errorf("%s asks again: %v, want %v", c.address, got, c.refresh)
		}
		if csp := header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", c.address, header)
		}
	}
}

// TestInstant: a time of another day is shown with its date.
func TestInstant(t *testing.T) {
	t.Parallel()
	for at, want := range map[time.Time]string{{}: "–", noon: "12:00:00", noon.Add(11 * time.Hour): "23:00:00",
		noon.Add(-13 * time.Hour): "2026-11-22 23:00:00", noon.Add(12 * time.Hour): "2026-11-24 00:00:00"} {
		if got := instant(noon, at); got != want {
			t.Errorf("%s is shown as %s, want %s", at, got, want)
		}
	}
	_, text, _ := get(world(t, 1), "/")
	if want := ">11:50:00 – 12:00:00<"; !strings.Contains(text, want) {
		t.Errorf("the overview lacks %q", want)
	}
}

// TestSchedules: the overview says when pipelines are due, and which are paused.
func TestSchedules(t *testing.T) {
	t.Parallel()
	_, text, _ := get(world(t, 1), "/")
	spec, err := schedule.Parse(fleetscore.ScheduleConfig{Cron: "30 2 * * *", Zone: "Asia/Kolkata"})
	if err != nil {
		t.Fatal(err)
	}
	due, _ := spec.Next(noon)
	for _, want := range []string{"<td class=\"id\">30 2 * * *</td><td>Asia/Kolkata</td>", due.Format("2006-01-02 15:04:05 UTC"), "‖ paused since", "</span> skipped: "} {
		if !strings.Contains(text, want) {
			t.Errorf("the overview doesn't say %q", want)
		}
	}
}

// TestManySensors: pages stay small, and all sensors can be reached from them.
func TestManySensors(t *testing.T) {
	t.Parallel()
	const sensors = 2*maxItems + 1
	h := world(t, sensors)
	_, text, _ := get(h, "/")
	if n := strings.Count(text, `href="/sensors/`); n != maxSensors || !strings.Contains(text, "1\u202f901 more sensors with fewer anomalies") {
		t.Errorf("the overview shows %d sensors", n)
	}
	seen := map[string]bool{}
	address := "/jobs/j"
	for pages := 0; address != ""; pages++ {
		_, text, _ := get(h, address)
		address = ""
		first := pages*maxItems + 1
		if want := fmt.Sprintf("Sensors %s to %s of %s", group(int64(first)), group(int64(min(first+maxItems-1, sensors))), group(sensors)); !strings.Contains(text, want) {
			t.Errorf("page %d doesn't say %q", pages+1, want)
		}
		if back := strings.Contains(text, `<a href="/jobs/j?#coverage">first</a>`); back != (pages > 0) {
			t.Errorf("page %d leads to the first one: %t", pages+1, back)
		}
		for _, part := range strings.Split(text, `href="`)[1:] {
			link, rest, _ := strings.Cut(part, `"`)
			link = html.UnescapeString(link)
			switch {
			case strings.HasPrefix(link, "/sensors/"):
				seen[link] = true
			case strings.HasPrefix(rest, ">next<"):
				address, _, _ = strings.Cut(link, "#")
			}
		}
		if pages > 3 {
			t.Fatal("the pages don't end")
		}
	}
	if len(seen) != sensors {
		t.Errorf("the pages show %d of %d sensors", len(seen), sensors)
	}
}

// TestTicks: for all data, axes have a few round places within the drawn area.
func TestTicks(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]float64{{0, 1}, {-3, 7}, {4.6, 5.9}, {1e-300, 2e-300}, {1e300, 1.7e300}, {5, 5}, {-math.MaxFloat64, math.MaxFloat64}, {1, 1 + 1e-15}} {
		got := ticks(c[0], c[1])
		if len(got) == 0 && c[1]-c[0] > 1e-12 || len(got) > 12 || !slices.IsSorted(got) {
			t.Errorf("ticks of %v: %v", c, got)
		}
		for _, v := range got {
			if slack := (c[1] - c[0]) * 1e-9; v < c[0]-slack || v > c[1]+slack {
				t.Errorf("tick %v lies outside of %v", v, c)
			}
		}
	}
	if got := timeTicks(1, 1); len(got) != 1 {
		t.Errorf("ticks of an instant: %v", got)
	}
	if got := timeTicks(0, fleetscore.Micros(time.Hour.Microseconds())); len(got) != 7 || got[1] != fleetscore.Micros((10*time.Minute).Microseconds()) {
		t.Errorf("ticks of an hour: %v", got)
	}
}
