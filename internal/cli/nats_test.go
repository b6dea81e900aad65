package cli

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/sensor"
	"github.com/fleetscore/fleetscore/internal/server"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/testkit"
	"github.com/fleetscore/fleetscore/internal/testkit/natstest"
)

// TestServersTakeReadings: two servers share ledger, store and a hub on a NATS cluster of
// three, and both take readings. A NATS server is killed, then each Fleetscore server, then
// the whole NATS cluster. In the end every acknowledged reading is in exactly one row.
func TestServersTakeReadings(t *testing.T) {
	t.Parallel()
	database, bucket, c := testkit.StartPostgres(t, testkit.PostgresVersions[1]), storetest.S3(t).NewBucket(t), natstest.StartCluster(t, 3)
	address := database.NewDatabase(t)
	queries, _, _ := strings.Cut(crashFleet, "fleets:")
	yaml := "store: " + bucket + strings.Replace(queries, "hub: {", fmt.Sprintf("hub: {nats: {url: %q}, ", c.URL()), 1)
	newShared := func(name string) *process {
		p := newServer(t, yaml, func(string) {})
		p.env, p.args = []string{server.LedgerVariable + "=" + address}, []string{"--shared", "--name", name}
		return p
	}
	a, b := newShared("a"), newShared("b")
	a.start()
	a.leads("a")
	b.start()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	sent, at := map[string]int64{}, map[*process]int{}
	acknowledged := func(p *process) int {
		mu.Lock()
		defer mu.Unlock()
		return at[p]
	}
	for _, p := range []*process{a, b} {
		wg.Go(func() {
			send(ctx, t, p.Client, func(id string) {
				mu.Lock()
				defer mu.Unlock()
				sent[id]++
				at[p]++
			})
		})
	}
	both := func(what string) {
		t.Helper()
		one, other := acknowledged(a), acknowledged(b)
		eventually(t, "both servers take readings "+what, func() bool { return acknowledged(a) > one+100 && acknowledged(b) > other+100 })
	}
	report := func(device string, ahead time.Duration) bool { // of devices beside those that are counted
		line := fmt.Sprintf(`{"TS":%q,"Device":%q,"Tag":"t","Value":1}`+"\n", time.Now().Add(ahead).UTC().Format(time.RFC3339Nano), device)
		return a.Send(ctx, http.MethodPost, "/hubs/hub/messages", nil, "application/x-ndjson", strings.NewReader(line), nil) == nil
	}
	eventually(t, "a reading is taken", func() bool { return report("silent", 0) })
	wg.Go(func() {
		for ; ctx.Err() == nil; pause(ctx, 200*time.Millisecond) {
			_ = report("skewed", 8*time.Second) // or not: a is killed
		}
	})
	both("at first")
	leader := c.Leader("fleetscore-000")
	leader.Kill()
	both("while a NATS server is dead")
	c.Start()
	b.kill()
	b.start()
	both("after b was killed")
	a.kill()
	b.leads("b")
	a.start()
	both("after a was killed")
	for _, p := range []*process{a, b} { // of which the second one has taken over, and the first one has started anew
		for _, device := range []string{"silent", "skewed"} {
			eventually(t, "only the sensor of the device "+device+" is "+device+" by more than five seconds", func() bool {
				list := p.sensors(url.Values{device: {"5s"}})
				return len(list) == 1 && list[0].Key[0] == device
			})
		}
	}
	c.Kill()
	eventually(t, "health says that the NATS servers are away", func() bool {
		status, text := a.page(api.Prefix + "/health")
		return status == http.StatusServiceUnavailable && strings.Contains(text, "NATS")
	})
	c.Start()
	both("after the NATS servers were away")
	cancel()
	wg.Wait()
	b.complete(sent)
	blobs, err := store.Open(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	rows := readingsIn(t, blobs, "readings")
	maps.DeleteFunc(rows, func(id string, _ int64) bool {
		_, device, _ := strings.Cut(id, " ")
		return strings.HasPrefix(device, "s")
	})
	if diff := cmp.Diff(sent, rows); diff != "" {
		t.Errorf("readings per window and sensor (-acknowledged +in rows):\n%.4000s", diff)
	}
	count, last := map[string]int64{}, map[string]fleetscore.Micros{}
	for id := range sent {
		at, key, _ := strings.Cut(id, " ")
		stamp, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			t.Fatal(err)
		}
		count[key]++
		last[key] = max(last[key], fleetscore.MicrosOf(stamp))
	}
	for _, p := range []*process{a, b} {
		eventually(t, "each server knows how many rows each sensor has, and the last one", func() bool {
			right := 0
			for _, x := range p.sensors(nil) {
				if key := strings.Join(x.Key, "/"); count[key] > 0 && x.Rows == count[key] && fleetscore.MicrosOf(*x.Last) == last[key] {
					right++
				}
			}
			return right == len(count)
		})
	}
	t.Logf("%d acknowledged readings", sum(sent))
}

// sensors are those that fulfil a condition; nil: all.
func (p *process) sensors(condition url.Values) []sensor.Sensor {
	p.t.Helper()
	var list api.SensorList
	if err := p.Get(p.t.Context(), "/sensors", condition, &list); err != nil {
		p.t.Error(err)
	}
	return list.Items
}

// TestNATSAway: a server that finds no NATS server when it starts says so, and works once
// one is there.
func TestNATSAway(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	s.Kill()
	queries, _, _ := strings.Cut(crashFleet, "fleets:")
	p := startServer(t, strings.Replace(queries, "hub: {", fmt.Sprintf("hub: {nats: {url: %q, replicas: 1}, ", s.URL()), 1))
	eventually(t, "health says that no NATS server answers", func() bool {
		status, text := p.page(api.Prefix + "/health")
		return status == http.StatusServiceUnavailable && strings.Contains(text, "no NATS server answers")
	})
	if err := p.Send(t.Context(), http.MethodPost, "/hubs/hub/messages", nil, "application/x-ndjson", strings.NewReader("{}\n"), nil); !fleetscore.Unavailable.Is(err) || !strings.Contains(err.Error(), "no NATS server answers") {
		t.Errorf("a reading meanwhile: %v", err)
	}
	s.Start()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	sent := map[string]int64{}
	send(ctx, t, p.Client, func(id string) {
		if sent[id]++; len(sent) > 60 {
			cancel()
		}
	})
	p.complete(sent)
	if status, text := p.page(api.Prefix + "/health"); status != http.StatusOK {
		t.Errorf("health afterwards: %d %s", status, text)
	}
	if diff := cmp.Diff(sent, p.readings()); diff != "" {
		t.Errorf("readings per window and sensor (-acknowledged +in rows):\n%s", diff)
	}
}
