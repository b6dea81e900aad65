package python

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// frames are the packages of DataFrames for the oldest Python that the wheel supports, and
// for newer ones.
var (
	oldest    = "3.8"
	oldFrames = []string{"numpy==1.24.4", "pandas==2.0.3", "polars==1.8.2", "pyarrow==17.0.0"}
	newFrames = []string{"numpy==2.4.6", "pandas==3.1.1", "polars==2.1.0", "pyarrow==26.0.1",
		"scikit-learn==1.9.1", "nbclient==0.11.0", "nbformat==5.11.1", "ipykernel==7.4.0"} // for the notebook
)

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// TestWheel: the wheel that is built here installs without any other package into fresh
// environments of the oldest and the newest Python, gives the command, and scores the
// reference fleet from pandas and Polars; its client works with a server of this wheel, and
// the notebook of the examples runs.
func TestWheel(t *testing.T) {
	t.Parallel()
	reference := testkit.Reference(t)
	pythons := testkit.Pythons()
	newest := ""
	for minor := 11; minor <= 20; minor++ {
		if v := fmt.Sprintf("3.%d", minor); pythons[v] != "" {
			newest = v
		}
	}
	if pythons[oldest] == "" || newest == "" {
		testkit.Missing(t, "Python "+oldest+" and a current one", "install them with pyenv")
	}
	build := testkit.LongCommand(t, filepath.Join(testkit.Root(t), "scripts", "wheel"), t.TempDir())
	build.Env = append(os.Environ(), "VERSION=v1.2.3-4-gabcdef", "PYTHON="+pythons[newest])
	wheel := run(t, build)
	if !strings.Contains(wheel, "fleetscore-1.2.3+4.gabcdef-py3-none-") {
		t.Errorf("the wheel's file is %s", wheel)
	}
	for version, packages := range map[string][]string{oldest: oldFrames, newest: newFrames} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			frames := testkit.VenvOf(t, pythons[version], packages...)
			dir := t.TempDir()
			run(t, testkit.Command(t, pythons[version], "-m", "venv", filepath.Join(dir, "venv")))
			bin := filepath.Join(dir, "venv", "bin")
			run(t, testkit.Command(t, filepath.Join(bin, "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", wheel))
			if got := run(t, testkit.Command(t, filepath.Join(bin, "fleetscore"), "--version")); !strings.Contains(got, "v1.2.3-4-gabcdef") {
				t.Errorf("the command says %q", got)
			}
			run(t, testkit.Command(t, filepath.Join(bin, "python"), "-c", "import fleetscore; fleetscore.Client()"))
			// The packages of DataFrames are lent by another environment, because to install
			// them takes minutes.
			packages := run(t, testkit.Command(t, frames, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
			own := run(t, testkit.Command(t, filepath.Join(bin, "python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
			if err := os.WriteFile(filepath.Join(own, "frames.pth"), []byte(packages+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			check := testkit.Command(t, filepath.Join(bin, "python"), filepath.Join("testdata", "check.py"), reference, filepath.Join(dir, "server"))
			check.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(dir, "state"))
			if got := run(t, check); got != "all good" {
				t.Errorf("the checks say %q", got)
			}
			if version == oldest {
				return
			}
			notebook := testkit.Command(t, filepath.Join(bin, "python"), filepath.Join("testdata", "notebook.py"),
				filepath.Join(testkit.Root(t), "examples", "notebook", "fleet.ipynb"), filepath.Join(dir, "notebook"))
			notebook.Env = check.Env
			got := run(t, notebook)
			for _, want := range []string{"faults found: 180 of 180", "('succeeded', 8640,", "rows of the server: 8640 "} {
				if !strings.Contains(got, want) {
					t.Errorf("the notebook lacks %q:\n%s", want, got)
				}
			}
		})
	}
}
