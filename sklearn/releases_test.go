package sklearn

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// liveBase is a Python with the libraries that scikit-learn needs. Releases that were
// built for these libraries are installed in separate folders on top of it, so that
// forty releases need less time and disk.
type liveBase struct {
	pythons []string // any of them
	with    []string
}

var (
	base36  = &liveBase{[]string{"3.6"}, []string{"numpy==1.19.*", "scipy==1.5.*", "pandas==1.1.*", "joblib==1.1.*", "threadpoolctl<3.2"}}
	base38  = &liveBase{[]string{"3.8"}, []string{"numpy==1.21.*", "scipy==1.7.*", "pandas==1.3.*", "joblib==1.2.*", "threadpoolctl==3.1.*"}}
	base311 = &liveBase{[]string{"3.11"}, []string{"numpy==1.26.*", "scipy==1.11.*", "pandas==2.2.*", "joblib==1.4.*", "threadpoolctl"}}
	base313 = &liveBase{[]string{"3.13", "3.12", "3.11"}, []string{"numpy>=2,<2.4", "scipy>=1.14,<1.17", "pandas<2.4", "joblib", "threadpoolctl", "narwhals"}}
	// The newest release uses the newest libraries.
	baseNewest = &liveBase{[]string{"3.14", "3.13", "3.12", "3.11"}, []string{"pandas"}}
)

// liveRelease is a release of scikit-learn, with the libraries that it needs.
type liveRelease struct {
	release string // empty for the newest that the registry serves
	on      *liveBase
	always  bool // compared in make test too, not only in make parity
}

// liveReleases are all releases since 0.19 that have a wheel for a Python that this
// machine may have. 0.21.0 was withdrawn, and 1.4.1 was published as 1.4.1.post1.
var liveReleases = []liveRelease{
	{"", baseNewest, true},
	{"0.19.2", base36, true},
	{"0.24.2", base38, true},
	{"1.2.2", base311, true},
	{"1.3.2", base311, true},
	{"0.19.0", base36, false}, {"0.19.1", base36, false},
	{"0.20.0", base36, false}, {"0.20.1", base36, false}, {"0.20.2", base36, false}, {"0.20.3", base36, false}, {"0.20.4", base36, false},
	{"0.21.1", base36, false}, {"0.21.2", base36, false}, {"0.21.3", base36, false},
	{"0.22", base36, false}, {"0.22.1", base36, false}, {"0.22.2.post1", base36, true},
	{"0.23.0", base38, false}, {"0.23.1", base38, false}, {"0.23.2", base38, false},
	{"0.24.0", base38, false}, {"0.24.1", base38, false},
	{"1.0", base38, false}, {"1.0.1", base38, false}, {"1.0.2", base38, false},
	{"1.1.0", base38, false}, {"1.1.1", base38, false}, {"1.1.2", base38, false}, {"1.1.3", base38, false},
	{"1.2.0", base311, false}, {"1.2.1", base311, false},
	{"1.3.0", base311, false}, {"1.3.1", base311, false},
	{"1.4.0", base311, false}, {"1.4.1.post1", base311, false}, {"1.4.2", base311, false},
	{"1.5.0", base311, false}, {"1.5.1", base311, false}, {"1.5.2", base311, false},
	{"1.6.0", base311, false}, {"1.6.1", base311, false},
	{"1.7.0", base313, false}, {"1.7.1", base313, false}, {"1.7.2", base313, false},
	{"1.8.0", base313, false},
	{"1.9.0", base313, false}, {"1.9.1", base313, false},
}

// TestLiveParity: models of every supported class with random parameters, made by
// several releases of scikit-learn with the newest one, give scikit-learn's results.
// `make parity` tests more models, with all releases since 0.19.
//
//	FLEETSCORE_PARITY_SEED     the first seed; 1 by default
//	FLEETSCORE_PARITY_ROUNDS   models per family and release; 2 by default
//	FLEETSCORE_PARITY_RELEASES all, or a regular expression of whole names; the newest is "newest"
//	FLEETSCORE_PARITY_ONLY     a regular expression of families in testdata/live.py
func TestLiveParity(t *testing.T) {
	if !testkit.All() && os.Getenv("FLEETSCORE_PARITY_RELEASES") == "" {
		testkit.Missing(t, "live scikit-learn", "set FLEETSCORE_TEST_ALL=1, or run make parity; both need Python 3 with venv and a package index. TestRandomFixtures compares the committed fixtures anyway")
	}
	pythons := testkit.Pythons()
	want := os.Getenv("FLEETSCORE_PARITY_RELEASES")
	ran := 0
	for _, r := range liveReleases {
		name := r.release
		if name == "" {
			name = "newest"
		}
		if want == "" && !r.always || want != "" && want != "all" && !regexp.MustCompile("^(?:"+want+")$").MatchString(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			python, path, err := r.install(t.Context(), pythons)
			if err != nil {
				if r.always {
					testkit.Missing(t, "scikit-learn "+name, err.Error())
				}
				t.Skipf("SKIPPED: scikit-learn %s can't be installed here (%v); the fixtures in testdata cover the releases before and after", name, err)
			}
			ran++
			compareLive(t, os.DirFS(runLive(t, python, path)))
		})
	}
	if ran == 0 && want != "" {
		t.Errorf("FLEETSCORE_PARITY_RELEASES=%s names no release that could be compared", want)
	}
	if ran < 3 && want == "" {
		testkit.Missing(t, "scikit-learn of three releases", fmt.Sprintf("only %d can be installed with the Pythons found (%v)", ran, pythons))
	}
}

// install makes a virtual environment of the base, and a folder with the release on top
// of it, each only once. It returns the interpreter and the value of PYTHONPATH.
func (r *liveRelease) install(ctx context.Context, pythons map[string]string) (python, path string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", err
	}
	err = fmt.Errorf("it needs Python %s", strings.Join(r.on.pythons, " or "))
	for _, v := range r.on.pythons {
		interpreter := pythons[v]
		if interpreter == "" {
			continue
		}
		pins := r.on.with
		if r.release == "" {
			pins = append(slices.Clone(pins), "scikit-learn")
		}
		base := filepath.Join(cache, "fleetscore-test", "base-"+v+"-"+fleetscore.DigestOf([]byte(strings.Join(pins, " "))).Short())
		python = filepath.Join(base, "bin", "python")
		pip := []string{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"}
		err = once(base, r.release == "", func() error {
			if err := run(ctx, interpreter, "-m", "venv", "--clear", base); err != nil {
				return err
			}
			return run(ctx, append(pip, pins...)...)
		})
		if err != nil || r.release == "" {
			if err == nil {
				return python, "", nil
			}
			continue
		}
		path = filepath.Join(cache, "fleetscore-test", "release-"+r.release+"-"+filepath.Base(base))
		err = once(path, false, func() error {
			return run(ctx, append(pip, "--no-deps", "--target", path, "scikit-learn=="+r.release)...)
		})
		if err == nil {
			return python, path, nil
		}
	}
	return "", "", err
}

// once fills a folder unless it is filled already. If it must be fresh, it is filled
// again every day.
func once(dir string, fresh bool, fill func() error) error {
	ready := filepath.Join(dir, "ready")
	if s, err := os.Stat(ready); err == nil && (!fresh || time.Since(s.ModTime()) < 24*time.Hour) {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := fill(); err != nil {
		return err
	}
	return os.WriteFile(ready, nil, 0o600)
}

func run(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// runLive makes models with one Python.
func runLive(t *testing.T, python, path string) string {
	t.Helper()
	setting := func(name, other string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return other
	}
	dir := t.TempDir()
	if keep := os.Getenv("FLEETSCORE_PARITY_KEEP"); keep != "" {
		dir = filepath.Join(keep, strings.ReplaceAll(t.Name(), "/", "_"))
	}
	cmd := exec.CommandContext(t.Context(), python, "-B", filepath.Join("testdata", "live.py"), dir,
		"--seed", setting("FLEETSCORE_PARITY_SEED", "1"), "--rounds", setting("FLEETSCORE_PARITY_ROUNDS", "2"), "--only", os.Getenv("FLEETSCORE_PARITY_ONLY"), "--changed", setting("FLEETSCORE_PARITY_CHANGED", "0"))
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "PYTHONWARNINGS=ignore")
	if path != "" {
		cmd.Env = append(cmd.Env, "PYTHONPATH="+path)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}
