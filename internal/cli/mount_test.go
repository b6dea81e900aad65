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

// TestMounts: models are read from a mount, a command finds its mounts, and may write into
// those alone that fleet.yaml says so of. A node without a mount of its pool is unusable, and once
// the mount is there, the job goes on. Mounts are listed and measured, on the server and on
// nodes.
func TestMounts(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	history, results := filepath.Join(root, "history"), filepath.Join(root, "results")
	var tools string
	p := newServer(t, fmt.Sprintf(`
hub: {key: [Device]}
mounts:
  history: {path: %s}
  results: {path: %s, read_only: false}
  elsewhere: {path: /mnt, type: nfs, source: "files.example.com:/export"}
fleets: {sensors: {mount: history, path: models, model: "model_{Device}", features_by: position}}
pools: {cpu: {slots: 1, scale: {min: 0, max: 1, idle_after: 1h}, mounts: [history, results]}}
pipelines:
  native: {dataset: rows, fleet: sensors, features: [Value], pool: cpu, schedule: {start_when: clock}}
  tool:
    dataset: rows
    fleet: sensors
    features: [Value]
    pool: cpu
    schedule: {start_when: clock}
    mounts: [results, history]
    runtime: command
    command: {run: "tool {Device} {mounts.history} {data}"}
`, history, results), func(dir string) {
		tools = filepath.Join(dir, "tools")
		for _, f := range []string{tools, filepath.Join(history, "models")} {
			if err := os.MkdirAll(f, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []string{"a", "b"} {
			if err := os.WriteFile(filepath.Join(history, "models", "model_"+n), testkit.GrowingModel(1, 1), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for name, text := range map[string]string{
			filepath.Join(history, "limits.txt"): "limit 7",
			filepath.Join(dir, "rows.csv"):       "TS,Device,Value\n2026-11-23T10:00:00Z,a,1\n2026-11-23T10:00:00Z,b,2\n",
		} {
			if err := os.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(tools, "tool"), []byte(`#!/bin/sh
set -e
if echo x > "$2/written"; then exit 4; fi
read limit < "$2/limits.txt"
read rest < "$FLEETSCORE_MOUNT_HISTORY/limits.txt"
echo "$1 has $limit, $rest" > "$FLEETSCORE_MOUNT_RESULTS/$1.txt"
`), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	p.args = []string{"--commands", tools}
	p.start()
	server := "--server=http://" + p.addr
	run := func(want int, args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, append(args, server)...)
		if code != want {
			t.Fatalf("%v: exit %d\n%s%s\n%s", args, code, stdout, stderr, p.log)
		}
		return stdout + stderr
	}
	run(0, "dataset", "upload", "rows", filepath.Join(p.dir, "rows.csv"))
	interval := []string{"--from", "2026-11-23T09:00:00Z", "--to", "2026-11-23T10:00:00Z", "-o", "json"}
	run(0, append([]string{"job", "submit", "native"}, interval...)...)

	var broken fleetscore.Node
	eventually(t, "a node without the mount is unusable", func() bool {
		var nodes api.List[fleetscore.Node]
		if err := p.Get(t.Context(), "/nodes", nil, &nodes); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes.Items {
			if n.State == fleetscore.NodeUnusable {
				broken = n
			}
		}
		return broken.ID != ""
	})
	if !strings.Contains(broken.Reason, "check mount results: there is no folder "+results) {
		t.Fatalf("the node without the mount is %+v\n%s", broken, p.log)
	}
	if err := os.Mkdir(results, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(results, 0o777); err != nil { // programs of root run as another user
		t.Fatal(err)
	}
	if got := run(0, append([]string{"job", "submit", "tool", "--wait"}, interval...)...); !strings.Contains(got, `"scored": 2`) {
		t.Fatalf("the job of the command: %s\n%s", got, p.log)
	}
	for _, device := range []string{"a", "b"} {
		if got := fileText(t, filepath.Join(results, device+".txt")); got != device+" has limit 7, limit 7\n" {
			t.Errorf("the command of %s wrote %q", device, got)
		}
	}
	var jobs api.List[fleetscore.Job]
	if err := p.Get(t.Context(), "/jobs?pipeline=native", nil, &jobs); err != nil || len(jobs.Items) != 1 || jobs.Items[0].Outcomes[fleetscore.Scored] != 2 {
		t.Errorf("the job that waited for the mount: %+v, %v", jobs.Items, err)
	}

	list := run(0, "mount", "list")
	for _, want := range []string{"history", "elsewhere of type nfs isn't mounted", "files.example.com:/export", "unusable", "good"} {
		if !strings.Contains(list, want) {
			t.Errorf("mount list lacks %q:\n%s", want, list)
		}
	}
	for _, args := range [][]string{{"results"}, {"results", "--pool", "cpu"}, {"history"}} {
		got := run(0, append([]string{"mount", "check", "--size", "1MB", "--files", "5", "-o", "json"}, args...)...)
		if !strings.Contains(got, `"read_bytes_per_second"`) || strings.Contains(got, "unusable") || strings.Contains(got, `"node"`) != (len(args) > 1) {
			t.Errorf("mount check %v: %s", args, got)
		}
	}
	for args, want := range map[string]string{"elsewhere": "isn't mounted", "elsewhere --pool cpu": "pools.cpu.mounts", "nothing": "no such mount", "history --pool gpu": "no such pool", "history --size x": "not a size"} {
		code, stdout, stderr := command(t, append(append([]string{"mount", "check"}, strings.Fields(args)...), server)...)
		if code == 0 || !strings.Contains(stdout+stderr, want) {
			t.Errorf("mount check %s: exit %d, want …%s…\n%s%s", args, code, want, stdout, stderr)
		}
	}
	files, err := os.ReadDir(results)
	if err != nil || len(files) != 2 {
		t.Errorf("the measurements left %v, %v", files, err)
	}
}
