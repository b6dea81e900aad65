//go:build spark

package files

import (
	"path/filepath"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestSpark reads tables that Spark wrote. It takes some minutes and 700 MB of
// packages, so it is compiled for make spark alone.
func TestSpark(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "java", "default-jre-headless")
	dir := t.TempDir()
	if out, err := testkit.LongCommand(t, testkit.Venv(t, "pyspark==3.5.5", "delta-spark==3.3.2"), filepath.Join("testdata", "spark.py"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	compare(t, dir)
}
