package cli

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestDamagedTables starts a server over a store in which a query's dataset, an
// uploaded dataset and the predictions of a pipeline are damaged, and folders of
// datasets are empty. Everything that needs none of them works, and what is damaged is
// named wherever it is asked for.
func TestDamagedTables(t *testing.T) {
	t.Parallel()
	ref := testkit.Reference(t)
	p := startServer(t, fmt.Sprintf(`
hub: {key: [Device, Tag], time: TS}
queries:
  means: |
    SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value INTO readings FROM hub TIMESTAMP BY TS
    GROUP BY Device, Tag, TumblingWindow(second, 5)
fleets:
  sensors: {path: %s, model: "model_{Device}_{Tag}"}
pools:
  cpu: {provider: local, slots: 2, scale: {min: 0, max: 2}}
pipelines:
  well: {dataset: good, fleet: sensors, features: [Value], pool: cpu}
  starved: {dataset: bad, fleet: sensors, features: [Value], pool: cpu}
  shattered: {dataset: good, fleet: sensors, features: [Value], pool: cpu}
  cracked: {dataset: cracked, fleet: sensors, features: [Value], pool: cpu, limits: {tries: 1}}
`, filepath.Join(ref, "models")))
	server := "--server=http://" + p.addr
	rows := filepath.Join(p.dir, "rows.csv")
	if err := os.WriteFile(rows, []byte("TS,Device,Tag,Value\n2026-11-23T10:00:00Z,1,1,5\n2026-11-23T10:00:05Z,1,1,6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dataset := range []string{"good", "bad", "cracked"} {
		if code, stdout, stderr := command(t, "dataset", "upload", dataset, rows, server); code != 0 {
			t.Fatalf("upload: exit %d\n%s%s", code, stdout, stderr)
		}
	}
	interval := []string{"--from", "2026-11-23T09:00:00Z", "--to", "2026-11-23T10:00:05Z", "--wait"}
	for _, pipeline := range []string{"well", "shattered"} { // most sensors have no rows, which isn't judged here
		command(t, append([]string{"job", "submit", pipeline, server}, interval...)...)
	}
	p.stop()
	folder := filepath.Join(p.dir, "data", "store")
	for _, name := range []string{"data/readings/_delta_log/00000000000000000000.json", "data/bad/_delta_log/00000000000000000001.json", "predictions/shattered/_delta_log/00000000000000000000.json"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(`{"commitInfo`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(folder, "data", "cracked", "date=*", "*", "*.parquet"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if err := os.WriteFile(f, []byte("PAR1"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"data/hollow/_delta_log", "data/Not a dataset", "data/stray"} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p.start()
	var list api.List[api.Dataset]
	if err := p.Get(t.Context(), "/datasets", nil, &list); err != nil {
		t.Fatal(err)
	}
	problems := map[string]string{}
	for _, d := range list.Items {
		problems[d.Name] = d.Problem
	}
	if len(problems) != 4 || problems["good"] != "" || !strings.Contains(problems["bad"], "dataset bad: data/bad/_delta_log/00000000000000000001.json") || !strings.Contains(problems["readings"], "dataset readings") {
		t.Errorf("datasets: %q", problems)
	}
	if status, page := p.page("/"); status != http.StatusOK || !strings.Contains(page, "predictions/shattered/_delta_log/00000000000000000000.json") || !strings.Contains(page, "dataset readings") {
		t.Errorf("overview: %d\n%s", status, page)
	}
	submit := func(pipeline string) fleetscore.Job {
		var j fleetscore.Job
		from, to := time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC), time.Date(2026, 11, 23, 10, 0, 5, 0, time.UTC)
		if err := p.Post(t.Context(), "/jobs", map[string]any{"pipeline": pipeline, "from": from, "to": to}, &j); err != nil {
			t.Fatal(err)
		}
		return j
	}
	if code, stdout, stderr := command(t, "dataset", "maintain", server); code != 0 || !strings.Contains(stdout, "data/good") || !strings.Contains(stdout, "dataset bad") {
		t.Errorf("maintain: exit %d\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := command(t, "dataset", "maintain", "none", server); code != 12 {
		t.Errorf("maintain none: exit %d\n%s", code, stderr)
	}
	starved, shattered := submit("starved"), submit("shattered") // older than the one that works
	well := submit("well")
	until := func(id fleetscore.JobID, done func(fleetscore.Job) bool) (j fleetscore.Job) {
		for range 600 {
			if err := p.Get(t.Context(), "/jobs/"+string(id), nil, &j); err != nil {
				t.Fatal(err)
			}
			if done(j) {
				return j
			}
			time.Sleep(50 * time.Millisecond) // a job's state has no other signal over HTTP
		}
		t.Fatalf("job %s is %s: %s\n%s", id, j.State, j.Reason, p.log)
		return j
	}
	if j := until(well.ID, func(j fleetscore.Job) bool { return j.State.Ended() }); j.Rows != 2 {
		t.Errorf("the job of the pipeline that is well: %+v", j)
	}
	until(starved.ID, func(j fleetscore.Job) bool {
		return j.State == fleetscore.JobWaiting && strings.Contains(j.Reason, "data/bad/_delta_log/00000000000000000001.json")
	})
	until(shattered.ID, func(j fleetscore.Job) bool {
		return j.State == fleetscore.JobWaiting && strings.Contains(j.Reason, "predictions of pipeline shattered")
	})
	cracked := until(submit("cracked").ID, func(j fleetscore.Job) bool { return j.State.Ended() }) // a node finds the damage
	if _, health := p.page("/api/v1/health"); cracked.State != fleetscore.JobFailed || !strings.Contains(health, `"dataset cracked"`) || !strings.Contains(health, "data/cracked/date=2026-11-23") {
		t.Errorf("a damaged file: the job is %s (%s), health: %s", cracked.State, cracked.Reason, health)
	}
	if !strings.Contains(cracked.Reason, "dataset cracked") {
		t.Errorf("the reason doesn't name the dataset: %s", cracked.Reason)
	}
	if code, list, _ := command(t, "dataset", "list", server, "-o", "jsonl"); code != 0 || !strings.Contains(list, "data/cracked/date=2026-11-23") {
		t.Errorf("the list doesn't name the damaged file: exit %d\n%s", code, list)
	}
	if _, health := p.page("/api/v1/health"); !strings.Contains(health, `"dataset bad"`) || !strings.Contains(health, `"dataset readings"`) || !strings.Contains(health, `"predictions of pipeline shattered"`) || strings.Contains(health, `"dataset good"`) {
		t.Errorf("health: %s", health)
	}
}
