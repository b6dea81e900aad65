package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestApplyShowsChanges: apply shows what changes and warns of what isn't meant;
// with --dry-run it changes nothing.
func TestApplyShowsChanges(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models"))
	p := startServer(t, text)
	server := "--server=http://" + p.addr
	file := filepath.Join(t.TempDir(), "changed.yaml")
	changed := strings.ReplaceAll(text, "\npools:", "\n  spare: {path: models/spare, model: \"m_{Device}\"}\npools:")
	changed = strings.ReplaceAll(changed, "scale: {min: 1", "scale: {min: 0")
	if changed = strings.ReplaceAll(changed, "dataset: readings", "dataset: readnigs"); strings.Count(changed, "readnigs") == 0 || !strings.Contains(changed, "min: 0") {
		t.Fatalf("the configuration looks otherwise than this test thinks:\n%s", text)
	}
	changed = strings.ReplaceAll(changed, `model: "m_{Device}"`, `model: "m_{Device}_{Tag}"`)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	var version string
	for _, dry := range []bool{true, true, false} {
		args := []string{"apply", file, server}
		if dry {
			args = append(args, "--dry-run")
		}
		code, stdout, stderr := command(t, args...)
		if code != 0 {
			t.Fatalf("dry %v: exit %d\n%s", dry, code, stderr)
		}
		for _, want := range []string{`+ fleets.spare.path: "models/spare"`, ".scale.min: 1 → 0", `.dataset: "readings" → "readnigs"`} {
			if !strings.Contains(stdout, want) {
				t.Errorf("dry %v: stdout lacks %q:\n%s", dry, want, stdout)
			}
		}
		for _, want := range []string{"warning: pipelines.", "no query writes the dataset readnigs (did you mean readings?)", "fleets.spare: no pipeline uses it"} {
			if !strings.Contains(stderr, want) {
				t.Errorf("dry %v: stderr lacks %q:\n%s", dry, want, stderr)
			}
		}
		last := stdout[strings.LastIndex(strings.TrimSpace(stdout), "\n")+1:]
		if version == "" {
			version = last
		} else if dry != (last == version) {
			t.Errorf("dry %v: got %q after %q", dry, last, version)
		}
	}
	if code, stdout, stderr := command(t, "apply", file, server); code != 0 || strings.Contains(stdout, "~") || strings.Contains(stdout, "+ ") {
		t.Errorf("applied twice: exit %d\n%s%s", code, stdout, stderr)
	}
}

// TestWarningsOfCommands: "validate" and "apply" say what can't work: a dataset that
// nobody writes, a cut longer than the time between two jobs, and, where it is known
// what was in force, a renamed pipeline. A waiting job of that pipeline ends.
func TestWarningsOfCommands(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models"))
	p := startServer(t, text)
	server := "--server=http://" + p.addr
	code, stdout, stderr := command(t, "job", "submit", "anomalies", "--from", "2026-11-23T10:00:00Z", "--to", "2026-11-23T11:00:00Z", "-o", "json", server)
	var j fleetscore.Job
	if err := json.Unmarshal([]byte(stdout), &j); code != 0 || err != nil {
		t.Fatalf("exit %d, %v\n%s%s", code, err, stdout, stderr)
	}
	for _, tt := range []struct {
		pairs []string
		want  string
		apply bool // only apply can know
	}{
		{[]string{"dataset: readings", "dataset: nowhere"}, "no query writes the dataset nowhere", false},
		{[]string{"cut: 1s", "cut: 10m", "label: N,", `label: N, schedule: {cron: "* * * * *"},`}, "readings becomes complete only in steps of 10m0s", false},
		{[]string{"  anomalies: {", "  renamed: {"}, "pipelines.anomalies is gone, and renamed scores the same dataset with the same fleet", true},
	} {
		file := filepath.Join(t.TempDir(), "fleet.yaml")
		if err := os.WriteFile(file, []byte(strings.NewReplacer(tt.pairs...).Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"validate", file}, {"apply", file, "--dry-run", server}, {"apply", file, server}} {
			code, _, stderr := command(t, args...)
			if warns := strings.Contains(stderr, "warning: ") && strings.Contains(stderr, tt.want); code != 0 || warns != (args[0] == "apply" || !tt.apply) {
				t.Errorf("%q: %q: exit %d\n%s", tt.pairs, args, code, stderr)
			}
		}
		if tt.apply {
			break // it stays, so that the job ends
		}
		if code, _, stderr := command(t, "apply", p.file, server); code != 0 { // as it was
			t.Fatalf("exit %d\n%s", code, stderr)
		}
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // a page of the API, not an event
		if err := p.Get(t.Context(), "/jobs/"+string(j.ID), nil, &j); err != nil {
			t.Fatal(err)
		}
		if j.State.Ended() {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the job of the pipeline that is gone stays %s: %s", j.State, j.Reason)
		}
	}
	if j.State != fleetscore.JobCanceled || !strings.Contains(j.Reason, "no pipeline anomalies any more") {
		t.Errorf("the job is %s: %s", j.State, j.Reason)
	}
}
