package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
)

// machine describes the machine that the figures come from.
func machine() map[string]string {
	m := map[string]string{
		"system": runtime.GOOS + "/" + runtime.GOARCH,
		"cores":  fmt.Sprint(runtime.NumCPU()),
		"Go":     runtime.Version(),
	}
	info, _ := os.ReadFile("/proc/cpuinfo") // this file exists only on Linux
	field := func(name string) string {
		for line := range strings.Lines(string(info)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
				return strings.TrimSpace(v)
			}
		}
		return ""
	}
	if name := field("model name"); name != "" {
		m["processor"] = fmt.Sprintf("%s, family %s, model %s", name, field("cpu family"), field("model"))
	}
	mem, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(mem)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "MemTotal: %d kB", &kb); n == 1 {
			m["memory"] = fmt.Sprintf("%.0f GiB", float64(kb)/(1<<20))
		}
	}
	var features []string
	for _, f := range []struct {
		name string
		has  bool
	}{{"AVX2", cpu.X86.HasAVX2}, {"FMA", cpu.X86.HasFMA}, {"AVX-512F", cpu.X86.HasAVX512F}, {"AVX-512DQ", cpu.X86.HasAVX512DQ}, {"AVX-512VL", cpu.X86.HasAVX512VL}} {
		if f.has {
			features = append(features, f.name)
		}
	}
	m["features"] = strings.Join(features, ", ")
	return m
}

// kernels returns the values of FLEETSCORE_CPU that differ on this machine, the fastest first.
func kernels() []string {
	out := []string{"generic"}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		out = append(out, "avx2")
	}
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ {
		out = append(out, "avx512")
	}
	slices.Reverse(out)
	return out
}

func loadAverage() string {
	data, _ := os.ReadFile("/proc/loadavg") // this file exists only on Linux
	if f := strings.Fields(string(data)); len(f) > 0 {
		return f[0]
	}
	return "?"
}

func (b *bench) commit(ctx context.Context) string {
	cmd := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty")
	cmd.Dir = b.root
	out, err := cmd.Output()
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(out))
}

// makePython makes the virtual environment of the peers, once for each list of
// requirements.
func (b *bench) makePython(ctx context.Context, python string) error {
	list := filepath.Join(b.root, "bench", "requirements.txt")
	data, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	h := sha256.Sum256(data)
	dir := filepath.Join(b.cache, "python-"+hex.EncodeToString(h[:4]))
	b.python = filepath.Join(dir, "bin", "python")
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	fmt.Println("installing the peers with pip …")
	for _, args := range [][]string{
		{python, "-m", "venv", "--clear", dir},
		{b.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", list},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out.String())
		}
	}
	return os.WriteFile(done, nil, 0o644)
}

// pythonEnv returns the environment of a peer: one thread for its BLAS, which is fastest for
// such small work, and no setting of which kernels it uses.
func pythonEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "OPENBLAS_") || strings.HasPrefix(s, "OMP_") || strings.HasPrefix(s, "MKL_")
	})
	return append(env, "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1", "PYTHONDONTWRITEBYTECODE=", "PYTHONWARNINGS=ignore")
}

// generate runs gen.py, unless the file that gen.py writes last exists.
func (b *bench) generate(ctx context.Context, last string, args ...string) error {
	if _, err := os.Stat(last); err == nil {
		return nil
	}
	fmt.Printf("making models: %s …\n", strings.Join(args[:len(args)-1], " "))
	cmd := exec.CommandContext(ctx, b.python, append([]string{filepath.Join(b.root, "bench", "gen.py")}, args...)...)
	cmd.Env, cmd.Stderr = pythonEnv(), os.Stderr
	return cmd.Run()
}

// fleetOf makes a fleet of model files, and returns their folder.
func (b *bench) fleetOf(ctx context.Context, count int) (string, error) {
	dir := filepath.Join(b.cache, "models-1", fmt.Sprintf("fleet-%d", count))
	return dir, b.generate(ctx, dir+".f64", "fleet", fmt.Sprint(count), dir)
}

// setOf makes a set of models, and returns its folder.
func (b *bench) setOf(ctx context.Context, name string, count int) (string, error) {
	dir := filepath.Join(b.cache, "models-1", fmt.Sprintf("%s-%d", name, count))
	return dir, b.generate(ctx, filepath.Join(dir, "rows.f64"), "set", name, fmt.Sprint(count), dir)
}
