// Command bench measures Fleetscore beside its peers, in the same run:
//
//	go run ./bench                            everything, 20 to 40 minutes
//	go run ./bench -quick                     a minute or two, for a first impression
//	go run ./bench -only kernels,fleet        some sections
//	go run ./bench -write docs/benchmarks.md  everything, and write the results into the document
//
// Fleetscore and the peer are measured in turn, A B B A and so on, several times. Ratios are
// calculated for each pair, and the medians are reported. First both compute the same
// predictions, and a difference ends the run. Other programs on the machine change wall times
// more than CPU seconds, so both are reported, with the load average.
//
// Python's packages are installed by pip into a virtual environment in the user's
// cache folder. Only -write changes a file of the repository. The results of each section are
// kept in the cache folder, so that -write can combine sections of several runs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is one run of the program.
type bench struct {
	quick   bool
	repeats int           // pairs
	span    time.Duration // how long one measurement should take
	root    string        // the repository's root folder
	cache   string
	scratch string // removed at the end
	ram     string // a folder in memory; empty if there is none
	python  string // the interpreter with the peers' packages
	binary  string // fleetscore
}

// sections in the order of the document.
var sections = []struct {
	name, title string
	quick       bool // whether the section is part of -quick
	run         func(context.Context, *bench) (*section, error)
}{
	{"reader", "Reading models", true, runReader},
	{"kernels", "Scoring models", true, runKernels},
	{"bound", "The RBF kernel and its bound", true, runBound},
	{"fleet", "A fleet from CSV to CSV", true, runFleet},
	{"notebook", "A DataFrame in a notebook", true, runNotebook},
	{"million", "A million models", false, runMillion},
	{"platform", "The same through the platform", false, runPlatform},
	{"python", "Models that Python scores", true, runPython},
	{"mixed", "Models that do harm", true, runMixed},
	{"overhead", "What a job costs besides scoring", true, runOverhead},
	{"queue", "Tasks per second", true, runQueue},
	{"stream", "Readings per second", true, runStream},
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-worker" {
		if err := work(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var b bench
	var only, write, python string
	flag.BoolVar(&b.quick, "quick", false, "measure less, without the million models: for a first impression")
	flag.StringVar(&only, "only", "", "sections, e.g. reader,kernels; none with -write combines earlier results")
	flag.StringVar(&write, "write", "", "document to put the results into, e.g. docs/benchmarks.md")
	flag.IntVar(&b.repeats, "repeats", 7, "number of pairs that are measured; 3 with -quick")
	flag.StringVar(&b.cache, "cache", "", "folder for models, packages and results; the default is in the user's cache folder")
	flag.StringVar(&python, "python", "python3", "interpreter that makes the virtual environment")
	flag.Parse()
	b.span = 300 * time.Millisecond
	if b.quick {
		b.repeats, b.span = 3, 80*time.Millisecond
	}
	if flag.NArg() > 0 || b.repeats < 1 {
		return errors.New("only flags are allowed; see go run ./bench -h")
	}
	defer func() {
		os.RemoveAll(b.scratch) // it holds nothing that must be kept
		os.RemoveAll(b.ram)
	}()
	if err := b.prepare(ctx, python); err != nil {
		return err
	}
	var wanted []string
	if only == "none" {
		wanted = []string{}
	} else if only != "" {
		wanted = strings.Split(only, ",")
	}
	known := 0
	for _, s := range sections {
		if slices.Contains(wanted, s.name) {
			known++
		} else if only != "" || b.quick && !s.quick {
			continue
		}
		if err := b.section(ctx, s.name, s.title, s.run); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if known < len(wanted) {
		return fmt.Errorf("-only %s: there is no such section; bench/main.go lists the sections", only)
	}
	if write != "" {
		return b.write(write)
	}
	return nil
}

// section measures, prints, and keeps the result.
func (b *bench) section(ctx context.Context, name, title string, run func(context.Context, *bench) (*section, error)) error {
	began := time.Now()
	fmt.Printf("\n%s\n\n", title)
	before := loadAverage()
	s, err := run(ctx, b)
	if err != nil {
		return err
	}
	s.Title, s.Date, s.Quick = title, began.UTC(), b.quick
	s.Load = [2]string{before, loadAverage()}
	s.Machine, s.Commit = machine(), b.commit(ctx)
	s.Took = time.Since(began).Round(time.Second).String()
	s.print(os.Stdout)
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if b.quick {
		return nil // a quick run doesn't replace kept results
	}
	return os.WriteFile(b.resultFile(name), data, 0o644)
}

func (b *bench) resultFile(name string) string {
	return filepath.Join(b.cache, "results", name+".json")
}

// prepare makes folders, the virtual environment and the binary.
func (b *bench) prepare(ctx context.Context, python string) (err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("go list: %w; run it inside the repository", err)
	}
	b.root = strings.TrimSpace(string(out))
	if b.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		b.cache = filepath.Join(dir, "fleetscore-bench")
	}
	for _, dir := range []string{"results", "models-1"} {
		if err := os.MkdirAll(filepath.Join(b.cache, dir), 0o755); err != nil {
			return err
		}
	}
	if b.scratch, err = os.MkdirTemp(b.cache, "run-"); err != nil {
		return err
	}
	if runtime.GOOS == "linux" {
		if dir, err := os.MkdirTemp("/dev/shm", "fleetscore-bench-"); err == nil {
			b.ram = dir
		}
	}
	if err := b.makePython(ctx, python); err != nil {
		return err
	}
	b.binary = filepath.Join(b.scratch, "fleetscore")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.binary, "./cmd/fleetscore")
	cmd.Dir, cmd.Stderr, cmd.Env = b.root, os.Stderr, append(os.Environ(), "CGO_ENABLED=0")
	return cmd.Run()
}
