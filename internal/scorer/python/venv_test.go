package python_test

import (
	"archive/zip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scorer/python"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// wheel writes a package with one module into a folder.
func wheel(t *testing.T, dir, name, version string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name+"-"+version+"-py3-none-any.whl"))
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	info := name + "-" + version + ".dist-info/"
	for _, file := range [][2]string{{name + ".py", "version = '" + version + "'\n"}, {info + "METADATA", "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}, {info + "RECORD", ""}} {
		w, err := z.Create(file[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(file[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRecipe: an environment is made once of wheels in a folder, however many ask for it at the
// same time; what can't be installed says why and leaves nothing behind.
func TestRecipe(t *testing.T) {
	t.Parallel()
	wheels, dir := t.TempDir(), t.TempDir()
	wheel(t, wheels, "pump", "1.0")
	testkit.Tool(t, "python3", "python3")
	recipe := python.Recipe{Base: "python3", Requirements: []byte("pump==1.0\n"), Index: wheels}
	var asking sync.WaitGroup
	made := make([]string, 3)
	for i := range made {
		asking.Go(func() {
			var err error
			if made[i], err = recipe.Environment(t.Context(), dir); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if made[0] == "" || made[0] != made[1] || made[1] != made[2] {
		t.Fatalf("the environments are %q", made)
	}
	if out, err := exec.Command(made[0], "-c", "import pump; print(pump.version)").CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "1.0" {
		t.Errorf("pump has the version %s, %v; want 1.0", out, err)
	}
	recipe.Requirements = []byte("pump==3.0\n")
	if _, err := recipe.Environment(t.Context(), dir); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "pump==3.0") {
		t.Errorf("requirements that can't be installed: %v", err)
	}
	if all, err := filepath.Glob(filepath.Join(dir, "made-*", "bin", "python")); err != nil || len(all) != 1 {
		t.Errorf("the environments are %v, %v; want 1", all, err)
	}
}

// TestRecipeNamesPackages: what pip would build of sources is refused, because their code would run
// outside of any isolation; names with releases, conditions and hashes are taken.
func TestRecipeNamesPackages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const refused = "only packages by their names are installed"
	for text, good := range map[string]bool{
		"numpy\n": true, "# a comment\n\nnumpy==1.26.4  # why\r\nscikit-learn[alldeps] >=1.3,<1.4 ; python_version < \"3.12\"\n": true, "\ufeffpump ~= 1.0": true,
		"pump==1.0 \\\n  --hash=sha256:abc \\\n  --hash=sha256:def\n": true, "pump (>=1.0)": true,
		"--no-binary :all:\npump": false, "--index-url http://evil\npump": false, "-e ./pump": false, "-r other.txt": false, "pump==1.0 --no-binary=pump": false,
		"./pump": false, "/tmp/pump-1.0.tar.gz": false, "pump-1.0.tar.gz": false, "pump-1.0.ZIP ; python_version > '3'": false, "pump @ https://evil/pump.tar.gz": false,
		"git+https://evil/pump": false, "https://evil/pump.tar.gz": false, "numpy\n\\\n--no-binary pump": false, "pump==1.0 --config-settings=a=b": false,
	} {
		_, err := python.Recipe{Base: "no-such-python", Requirements: []byte(text)}.Environment(t.Context(), dir)
		if !fleetscore.Invalid.Is(err) || strings.Contains(err.Error(), refused) == good {
			t.Errorf("%q: %v; want it taken: %v", text, err, good)
		}
	}
}
