package python

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestBootstrapEnds: a process whose node was killed before it had sent the worker's program ends.
func TestBootstrapEnds(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "python3", "python3")
	for _, begin := range []string{"", "\x05", "\x05\x00\x00\x00ab"} {
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "python3", "-c", bootstrap)
		cmd.ExtraFiles = []*os.File{in}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.WriteString(begin); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || ctx.Err() != nil {
			t.Errorf("after %q: %v, %v; want it to end by itself", begin, err, ctx.Err())
		}
	}
}

// TestPredictionsByScores: predictions that follow from decision values are scikit-learn's, also
// where a decision value is exactly 0, or numbers are not finite, in a new and an old release.
func TestPredictionsByScores(t *testing.T) {
	t.Parallel()
	source := filepath.Join(testkit.Root(t), "python", "fleetscore", "_models.py")
	for _, interpreter := range []string{testkit.ModelsVenv(t), testkit.Venv(t, testkit.OldPackages...)} {
		out, err := testkit.Command(t, interpreter, filepath.Join("testdata", "ties.py"), source).CombinedOutput()
		if ties, e := strconv.Atoi(strings.TrimSpace(string(out))); err != nil || e != nil || ties < 100 {
			t.Errorf("%s: %v: %s", interpreter, err, out)
		}
	}
}
