package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
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
	if diff := cmp.Diff(sent, readingsIn(t, blobs, "readings")); diff != "" {
		t.Errorf("readings per window and sensor (-acknowledged +in rows):\n%.4000s", diff)
	}
	t.Logf("%d acknowledged readings", sum(sent))
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
