package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestNodeCache: a node that reads through the server reads the files of models once for
// several jobs, and pool and node say how full its cache is and what it was good for.
func TestNodeCache(t *testing.T) {
	t.Parallel()
	p := newServer(t, `
hub: {key: [Device]}
fleets: {sensors: {path: ./models, model: "model_{Device}", features_by: position}}
pools: {lab: {provider: static}}
pipelines:
  native: {dataset: rows, fleet: sensors, features: [Value], pool: lab, schedule: {start_when: clock}, limits: {no_data: 100%}}
`, func(dir string) {
		if err := os.MkdirAll(filepath.Join(dir, "models"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"a", "b", "c"} {
			if err := os.WriteFile(filepath.Join(dir, "models", "model_"+n), testkit.GrowingModel(1, 1), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		rows := "TS,Device,Value\n"
		for hour := range 3 {
			rows += fmt.Sprintf("2026-11-23T0%d:30:00Z,a,1\n2026-11-23T0%d:30:00Z,b,2\n", hour, hour)
		}
		if err := os.WriteFile(filepath.Join(dir, "rows.csv"), []byte(rows), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	p.start()
	server, folder := "--server=http://"+p.addr, filepath.Join(t.TempDir(), "cache")
	if code, stdout, stderr := command(t, "dataset", "upload", "rows", filepath.Join(p.dir, "rows.csv"), server); code != 0 {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	p.agent("http://"+p.addr, "FLEETSCORE_BLOBS=server", "FLEETSCORE_CACHE_DIR="+folder, "FLEETSCORE_CACHE_SIZE=50MB")
	for hour := range 3 {
		code, stdout, stderr := command(t, "job", "submit", "native", "--wait", server, "-o", "json", "--from", fmt.Sprintf("2026-11-23T0%d:00:00Z", hour), "--to", fmt.Sprintf("2026-11-23T0%d:00:00Z", hour+1))
		if code != 0 || !strings.Contains(stdout, `"scored": 2`) {
			t.Fatalf("exit %d\n%s%s\n%s", code, stdout, stderr, p.log)
		}
	}
	var use fleetscore.CacheUse
	eventually(t, "the node tells of its cache", func() bool {
		var nodes api.List[fleetscore.Node]
		if err := p.Get(t.Context(), "/nodes", nil, &nodes); err != nil {
			t.Fatal(err)
		}
		if n := nodes.Items; len(n) == 1 && n[0].Load != nil && n[0].Load.Cache != nil {
			use = *n[0].Load.Cache
		}
		return use.Hits > 0
	})
	files, err := filepath.Glob(filepath.Join(folder, "0", "*.pack"))
	if err != nil || int64(len(files)) != use.Files || use.Files == 0 || use.Hits != 2*use.Misses || use.LimitBytes != 50_000_000 || use.Bytes == 0 || use.Bytes > 1<<20 {
		t.Errorf("three jobs with the same models: the cache tells %+v and holds %v, %v", use, files, err)
	}
	want := fmt.Sprintf("%d of %d files were there", use.Hits, use.Hits+use.Misses)
	for _, args := range [][]string{{"node", "list"}, {"pool", "show", "lab"}} {
		if code, stdout, stderr := command(t, append(args, server)...); code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%v lacks %q: exit %d\n%s%s", args, want, code, stdout, stderr)
		}
	}
	if code, _, stderr := command(t, "node", "--pool", "lab", "--cache-size", "much", server); code != 10 || !strings.Contains(stderr, "not a size such as 20GB") {
		t.Errorf("a bad size: exit %d\n%s", code, stderr)
	}
}
