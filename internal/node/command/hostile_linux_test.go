package command_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/node/command"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer/scorertest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestHostileCommands: what a command tries against other jobs, the node and the machine fails
// if it is isolated, and works if it isn't.
func TestHostileCommands(t *testing.T) {
	t.Parallel()
	box := isolated(t)
	attack := `import sys
sys.path.insert(0, sys.argv[1])
import hostile
try:
    worked = getattr(hostile, sys.argv[2])()
except Exception as e:
    print("failed:", type(e).__name__, e)
    worked = False
sys.exit(7 if worked else 0)
`
	testkit.Tool(t, "python3", "python3")
	code := filepath.Join(t.TempDir(), "attack.py")
	if err := os.WriteFile(code, []byte(attack), 0o644); err != nil {
		t.Fatal(err)
	}
	scripts := filepath.Join(testkit.Root(t), "internal", "scorer", "python", "testdata")
	for name, use := range map[string]*sandbox.Sandbox{"isolated": box, "not isolated": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := scorertest.NewTarget(t)
			a.Disk = 16 << 20 // as score allows
			var k kept
			cfg := command.Config{Python: "python3", Sandbox: use, Secrets: map[string]string{"ATTACK": a.JSON(t)},
				CommandConfig: fleetscore.CommandConfig{Run: "python {code} " + scripts + " {Tag}", Code: code, WorkDir: "{output}", Read: []string{scripts}}}
			got := score(t, cfg, &k, time.Minute, scorertest.Attacks...)
			worked := map[string]bool{}
			for _, it := range got.Items {
				tag := it.Key.Values()[1]
				if worked[tag] = strings.Contains(it.Reason, "exit code 7"); it.Outcome != fleetscore.Scored && !worked[tag] {
					t.Errorf("%s ended %s: %s", tag, it.Outcome, it.Reason)
				}
			}
			a.Judge(t, worked)
			for _, attack := range scorertest.Attacks {
				if use == nil && scorertest.Hardened(attack) {
					continue
				}
				if isolated := use != nil; worked[attack] == isolated {
					t.Errorf("attack %s: worked is %v\n%s", attack, worked[attack], k.text())
				}
			}
		})
	}
}
