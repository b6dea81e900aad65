package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
