package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestUpgrade replaces a server by one of another release while jobs run and a device sends
// readings. Jobs that the old one took end well, its own nodes are replaced by nodes of the
// new release, an agent of the old release goes on working, and each reading that one of
// them acknowledged is counted once.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	yaml := strings.Replace(strings.TrimSpace(fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models"))), "pools:\n", "pools:\n  lab: {provider: static}\n", 1) +
		historyPipeline + "  agents: {dataset: history, fleet: sensors, features: [Value], pool: lab}\n"
	p := newServer(t, yaml, func(string) {})
	p.env = []string{asRelease + "=1.0.0"}
	p.start()
	p.uploadRows()
	address := "http://" + p.addr
	p.agent(address)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sent := make(chan int64, 1)
	device := p.device(address)
	go func() { sent <- sendReadings(ctx, device, "1") }()

	var jobs []fleetscore.JobID
	submit := func() {
		t.Helper()
		for _, pipeline := range []string{"history", "agents"} {
			var j fleetscore.Job
			if err := p.Post(t.Context(), "/jobs", map[string]string{"pipeline": pipeline, "from": fmt.Sprintf("2026-11-23T00:%02d:00Z", len(jobs)), "to": fmt.Sprintf("2026-11-23T00:%02d:00Z", len(jobs)+2)}, &j); err != nil {
				t.Fatal(err)
			}
			jobs = append(jobs, j.ID)
		}
	}
	for range 6 {
		submit()
	}
	left := 0
	for _, id := range jobs {
		if !p.job(id).State.Ended() {
			left++
		}
	}
	p.stop()
	p.env = []string{asRelease + "=2.0.0"}
	p.start()
	var health api.Health
	if err := p.Get(t.Context(), "/health", nil, &health); err != nil || health.Version != "2.0.0" {
		t.Fatal(health, err)
	}
	submit()
	for _, id := range jobs {
		p.ends(id)
	}
	var nodes api.List[fleetscore.Node]
	if err := p.Get(t.Context(), "/nodes", nil, &nodes); err != nil {
		t.Fatal(err)
	}
	works := func(pool, release string) bool {
		return slices.ContainsFunc(nodes.Items, func(n fleetscore.Node) bool {
			return n.Pool == pool && n.Version == release && !n.State.Ended()
		})
	}
	if !works("cpu", "2.0.0") || works("cpu", "1.0.0") || !works("lab", Version) {
		t.Errorf("after the upgrade there are %+v", nodes.Items)
	}
	cancel()
	acknowledged := <-sent
	eventually(t, "each acknowledged reading is counted", func() bool { return p.countedIn(filepath.Join(p.dir, "data", "store")) >= acknowledged })
	if n := p.countedIn(filepath.Join(p.dir, "data", "store")); n != acknowledged || n == 0 {
		t.Errorf("%d readings were acknowledged, %d are counted", acknowledged, n)
	}
	if left == 0 {
		t.Error("all jobs had ended before the upgrade, so this has shown little")
	}
	t.Logf("%d readings; of %d jobs %d hadn't ended when the old release did", acknowledged, len(jobs), left)
}
