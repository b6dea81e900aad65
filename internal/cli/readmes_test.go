package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestReadmes runs every command of the examples' READMEs as printed, on a Docker engine too.
// Its base image is made here, because no test fetches images from elsewhere.
func TestReadmes(t *testing.T) {
	t.Parallel()
	python := testkit.Venv(t, "numpy==2.4.6", "pandas==3.1.1", "pyarrow==26.0.1", "scikit-learn==1.9.1", "xgboost-cpu==3.2.0", "lightgbm==4.7.0",
		"onnxruntime==1.32.0", "skl2onnx==1.20.0", "pyod==3.6.7", "skops==0.16.0") // the environment of package python's tests
	engine := testkit.StartDocker(t)
	pythonImage(t, engine, "python:3.13-slim")
	programs := t.TempDir()
	if err := os.Symlink("/usr/bin/docker", filepath.Join(programs, "docker")); err != nil { // Debian's
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t, python)
	defer r.stop()
	r.env = append(r.env, "DOCKER_HOST="+engine.Host, "DOCKER_CONFIG="+t.TempDir(), "PIP_CACHE_DIR="+filepath.Join(cache, "pip"), "PYTHONPATH="+filepath.Join(testkit.Root(t), "python"))
	for i, v := range r.env {
		if strings.HasPrefix(v, "PATH=") {
			r.env[i] = "PATH=" + programs + ":" + strings.TrimPrefix(v, "PATH=")
		}
	}
	top := r.dir
	if err := os.CopyFS(filepath.Join(top, "examples"), os.DirFS(filepath.Join(testkit.Root(t), "examples"))); err != nil {
		t.Fatal(err)
	}
	yaml := filepath.Join(top, "examples", "container", "fleet.yaml")
	if err := os.WriteFile(yaml, []byte(strings.ReplaceAll(fileText(t, yaml), "127.0.0.1:7180", r.addr)), 0o600); err != nil {
		t.Fatal(err)
	}
	done := 0
	for _, example := range []string{".", "native", "python", "container", "training", "fleet"} {
		r.dir = filepath.Join(top, "examples", example)
		for _, b := range blocksOf(t, filepath.Join("..", "examples", example, "README.md")) {
			b.text = strings.ReplaceAll(b.text, "unix:///var/run/docker.sock", engine.Host)
			if example == "fleet" { // its commands are those of somebody in the repository
				r.dir = top
			}
			r.follow(example, b)
			done += strings.Count(b.text, "\n")
		}
		if example == "container" {
			eventually(t, "the containers are gone", func() bool { return engine.Run(t, "ps", "-aq") == "" })
		}
		r.stop()
	}
	if len(readTable(t, filepath.Join(top, "scored", "predictions.csv"))) == 0 || done < 20 {
		t.Errorf("of the commands %d lines were run", done)
	}
}

// pythonImage gives an engine an image with Python and what the examples need, in which there is
// nothing left to do for pip.
func pythonImage(t *testing.T, engine *testkit.Docker, image string) {
	t.Helper()
	root := t.TempDir()
	if out, err := testkit.Command(t, testkit.VenvOf(t, "/usr/bin/python3", containerPackages...), "-c", compiled, root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, folder := range []string{"usr/bin", "usr/local/bin"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/pip"), []byte("#!/bin/sh\necho Requirement already satisfied: $*\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr/bin/python3", filepath.Join(root, "usr/local/bin/python")); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	code, _, stderr := command(t, append([]string{"image", "build", image, "--base", testkit.PythonRoot(t), "--copy", root + ":/", "--env", asCommand + "=1", "--to", archive, "--wheel"}, testkit.Wheels(t, containerPackages...)...)...)
	if code != 0 {
		t.Fatal(stderr)
	}
	engine.Run(t, "load", "-i", archive)
}
