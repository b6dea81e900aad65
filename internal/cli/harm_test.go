package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/scorertest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// hostile is the value of the variable asCommand that makes the test's own program behave
// as fleetscore whose nodes have models that do harm.
const hostile = "hostile"

func hostileMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	i := slices.IndexFunc(root.Commands(), func(c *cobra.Command) bool { return c.Name() == "node" })
	root.RemoveCommand(root.Commands()[i])
	root.AddCommand(newNodeCommand(scorertest.Hostile{Runtime: scorer.Native{}}))
	cmd, err := root.ExecuteContextC(ctx)
	return exitCode(ctx, cmd, err, os.Stderr)
}

// harmed is a server with a fleet of 40 sensors, d00 to d39, whose rows make some models do
// harm.
func harmed(t *testing.T, limits string, rows map[string]float64) (p *process, server string) {
	t.Helper()
	dir := t.TempDir()
	model, err := os.ReadFile(filepath.Join(testkit.Root(t), "sklearn", "testdata", "1.9.1", "one.p5.pickle"))
	if err != nil {
		t.Fatal(err)
	}
	var data strings.Builder
	data.WriteString("TS,Device,Value\n")
	for i := range 40 {
		device := fmt.Sprintf("d%02d", i)
		if err := os.WriteFile(filepath.Join(dir, "m_"+device), model, 0o600); err != nil {
			t.Fatal(err)
		}
		v, bad := rows[device]
		if !bad {
			v = 20
		}
		fmt.Fprintf(&data, "2026-11-23T10:00:00Z,%s,%v\n", device, v)
	}
	file := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(file, []byte(data.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p = newServer(t, fmt.Sprintf(`
hub: {key: [Device]}
fleets: {sensors: {path: %s, model: "m_{Device}"}}
pools: {cpu: {slots: 1, scale: {max: 1}}}
pipelines:
  p: {dataset: rows, fleet: sensors, features: [Value], pool: cpu, limits: {%s}}
`, dir, limits), func(string) {})
	p.env = []string{asCommand + "=" + hostile}
	p.start()
	server = "--server=http://" + p.addr
	if code, _, stderr := command(t, "dataset", "upload", "rows", file, server); code != 0 {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	return p, server
}

// score submits a job over all rows and returns it with its only task and its items.
func (p *process) score(server string) (fleetscore.Job, api.TaskDetail, map[string]fleetscore.Item) {
	p.t.Helper()
	_, stdout, stderr := command(p.t, "job", "submit", "p", "--from", "2026-11-23T09:00:00Z", "--to", "2026-11-23T10:00:00Z", "--wait", "-o", "json", server)
	var j fleetscore.Job
	if err := json.Unmarshal([]byte(stdout), &j); err != nil {
		p.t.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	var tasks api.List[api.TaskDetail]
	var items api.List[fleetscore.Item]
	for path, to := range map[string]any{"/tasks": &tasks, "/coverage": &items} {
		if err := p.Get(p.t.Context(), "/jobs/"+string(j.ID)+path, nil, to); err != nil {
			p.t.Fatal(err)
		}
	}
	if len(tasks.Items) != 1 || len(items.Items) != 40 {
		p.t.Fatalf("%d tasks, %d items", len(tasks.Items), len(items.Items))
	}
	byKey := map[string]fleetscore.Item{}
	for _, i := range items.Items {
		byKey[i.Key.String()] = i
	}
	return j, tasks.Items[0], byKey
}

// states are how the attempts of a task ended.
func states(d api.TaskDetail) string {
	var out []string
	for _, a := range d.Tries {
		out = append(out, a.State)
	}
	return strings.Join(out, " ")
}

// TestQuarantine: models that crash nodes, hang and eat memory cost their own sensors
// alone. After two jobs they are in quarantine, so that the third job harms no node; a
// release puts one back.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	p, server := harmed(t, "tries: 1, model_timeout: 5s, model_memory_mb: 256, quarantine_after: 2", map[string]float64{"d03": scorertest.Crash, "d17": scorertest.Hang, "d25": scorertest.Eat})
	want := map[string]struct {
		outcome fleetscore.Outcome
		reason  string
	}{"d03": {fleetscore.Failed, "signal: killed"}, "d17": {fleetscore.TimedOut, "not done after 5s"}, "d25": {fleetscore.Failed, "out of memory"}}
	for range 2 {
		j, task, items := p.score(server)
		if states(task) != "lost lost succeeded" || !task.Alone || task.Failures != 0 {
			t.Errorf("attempts %s, task %+v", states(task), task.Task)
		}
		if j.Outcomes[fleetscore.Scored] != 37 || j.State != fleetscore.JobPartlyFailed {
			t.Errorf("the job is %s: %v", j.State, j.Outcomes)
		}
		for key, w := range want {
			if i := items[key]; i.Outcome != w.outcome || !strings.Contains(i.Reason, w.reason) {
				t.Errorf("%s is %s: %s; want %s: %s", key, i.Outcome, i.Reason, w.outcome, w.reason)
			}
		}
	}
	j, task, items := p.score(server)
	if states(task) != "succeeded" || j.Outcomes[fleetscore.Quarantined] != 3 || j.Outcomes[fleetscore.Scored] != 37 {
		t.Errorf("with the models in quarantine: attempts %s, outcomes %v", states(task), j.Outcomes)
	}
	if reason := items["d03"].Reason; !strings.Contains(reason, "in 2 jobs of pipeline ") || !strings.Contains(reason, "signal: killed") || !strings.Contains(reason, "fleet release sensors") {
		t.Errorf("d03 is quarantined: %s", reason)
	}
	if code, stdout, stderr := command(t, "fleet", "quarantine", "ls", "sensors", server); code != 0 || strings.Count(stdout, "sensors ") != 3 || !strings.Contains(stdout, "d25") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := command(t, "fleet", "show", "sensors", server); code != 0 || !strings.Contains(stdout, "quarantined: 1 sensor") || !strings.Contains(stdout, "not done after 5s") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	if _, page := p.page("/"); !strings.Contains(page, "quarantined") {
		t.Errorf("the portal doesn't show the quarantine:\n%s", page)
	}
	if code, _, stderr := command(t, "fleet", "release", "sensors", "--key", "d03", "--key", "d04", server); code != 12 || !strings.Contains(stderr, "no harm is known of d04") {
		t.Errorf("release of an unknown sensor: exit %d\n%s", code, stderr)
	}
	if code, stdout, stderr := command(t, "fleet", "release", "sensors", "--key", "d17", server); code != 0 || !strings.Contains(stdout, "d17") {
		t.Errorf("release: exit %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, _ := command(t, "fleet", "quarantine", "ls", server)
	if code != 0 || strings.Contains(stdout, "d17") || !strings.Contains(stdout, "d03") {
		t.Errorf("after the release: exit %d\n%s", code, stdout)
	}
}

// TestHang: a model that never ends is found by limits.task_timeout; the node that is stuck
// in it ends, and its slot works again.
func TestHang(t *testing.T) {
	t.Parallel()
	p, server := harmed(t, "tries: 2, model_timeout: 1s, task_timeout: 6s", map[string]float64{"d17": scorertest.Hang})
	j, task, items := p.score(server)
	if states(task) != "timed_out succeeded" || j.Outcomes[fleetscore.Scored] != 39 || items["d17"].Outcome != fleetscore.TimedOut {
		t.Errorf("attempts %s, outcomes %v, d17 %+v", states(task), j.Outcomes, items["d17"])
	}
}
