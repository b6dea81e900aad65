package simtest

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

var (
	built   = flag.String("mutant", "", "the fault to build in; see mutants.go")
	oneSeed = flag.Int("seed", -1, "the only seed to run; its account goes to a file")
	from    = flag.Int("from", -1, "run the seeds from this one on in this process; without it, processes of their own run them")
	seeds   = flag.Int("seeds", -1, "run so many seeds; -1 means 1000 with FLEETSCORE_TEST_ALL=1, otherwise 60, and 30 with -short")
)

const (
	hangs     = 2 * time.Minute // how long a seed may take on a real clock
	batch     = 20              // seeds of a process
	forMutant = 300             // seeds that may find a fault that is built in
)

// seedCount is how many seeds are to be run.
func seedCount() int {
	switch {
	case *seeds >= 0:
		return *seeds
	case testing.Short():
		return 30
	case testkit.All():
		return 1000
	}
	return 120
}

// TestSimulation runs many seeds, or the one that is asked for. As a process runs one
// seed after the other, several processes run them, as many at once as there are
// processors.
func TestSimulation(t *testing.T) {
	switch {
	case *oneSeed >= 0:
		if err := simulate(t, mutant(*built), *oneSeed, 1); err != nil {
			t.Fatal(err)
		}
		return
	case *from >= 0:
		if err := simulate(t, mutant(*built), *from, seedCount()); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	for first := 0; first < seedCount(); first += batch {
		n := min(batch, seedCount()-first)
		t.Run(fmt.Sprintf("%d-%d", first, first+n-1), func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command(os.Args[0], inProcess(first, n)...).CombinedOutput()
			if ran := len(steps.FindAll(out, -1)); err == nil && ran != n {
				t.Errorf("%d seeds ran instead of %d", ran, n)
			}
			if err != nil {
				t.Errorf("%v: %s", err, steps.ReplaceAll(out, nil))
			}
		})
	}
}

// inProcess are the arguments of a process that runs seeds.
func inProcess(first, n int, more ...string) []string {
	return append([]string{"-test.run", "^TestSimulation$", "-test.v", "-from", strconv.Itoa(first), "-seeds", strconv.Itoa(n)}, more...)
}

// steps is the line that says that a seed found nothing.
var steps = regexp.MustCompile(`.*seed \d+: \d+ steps.*\n`)

// simulate runs seeds, one after the other, until one finds a broken promise. They share one bubble, as libraries keep
// channels from use to use, which must not pass from bubble to bubble. Each seed has
// a day of its own on the bubble's clock, so that it finds the same time whatever
// ran before.
func simulate(t *testing.T, m mutant, first, n int) (err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // as many as there are would give each machine its own order
	var running atomic.Int64
	watch := time.AfterFunc(hangs*time.Duration(n), func() {
		panic(fmt.Sprintf("simulation: seed %d hangs, most likely as a lock is held while something is asked: go test ./internal/simtest -run Simulation -seed %[1]d", running.Load()))
	})
	defer watch.Stop()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		for seed := first; seed < first+n; seed++ {
			running.Store(int64(seed))
			time.Sleep(time.Until(start.Add(time.Duration(seed)*24*time.Hour + 24*time.Hour - 2*time.Minute))) // runs pass midnight
			var sum string
			if sum, err = run(t, uint64(seed), m); err != nil {
				err = fmt.Errorf("seed %d: %w\nthe same again: go test ./internal/simtest -run Simulation -seed %[1]d", seed, err)
				return
			}
			if m == sound {
				t.Logf("seed %d: %s", seed, sum)
			}
		}
	})
	return err
}

// run runs one seed. It returns what tells the run from others.
func run(t *testing.T, seed uint64, m mutant) (sum string, err error) {
	cryptotest.SetGlobalRandom(t, seed)
	base := t.TempDir()
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() { // where syncing costs nothing
		if base, err = os.MkdirTemp("/dev/shm", "simulation"); err != nil {
			return "", err
		}
	}
	defer os.RemoveAll(base)
	var trace func(string)
	if *oneSeed >= 0 {
		file := filepath.Join(os.TempDir(), fmt.Sprintf("fleetscore-simulation-%d.txt", seed))
		f, err := os.Create(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		out := bufio.NewWriter(f)
		defer out.Flush()
		trace = func(line string) { fmt.Fprintln(out, line) }
		t.Logf("the account of the run is in %s", file)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w, err := newWorld(t, seed, m, base, trace)
	if err != nil {
		return "", err
	}
	defer func() {
		if e := w.ledger.Close(); err == nil {
			err = e
		}
	}()
	played := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		err := w.play(ctx)
		cancel()
		w.background.Wait()
		played <- err
		close(stop)
	}()
	w.conductor.run(stop)
	if err := <-played; err != nil {
		w.abandon()
		return "", err
	}
	p, err := w.check(context.Background())
	if fleetscore.Corrupt.Is(err) { // what a reader needs is gone
		p, err = append(p, err.Error()), nil
	}
	if err == nil && len(p) > 0 {
		err = fmt.Errorf("%d promises are broken:\n%s", len(p), strings.Join(p, "\n"))
	}
	w.log.Info("maintenance in all", "joined", w.record.upkept.Replaced, "expired", w.record.upkept.Expired, "deleted", w.record.upkept.Deleted)
	return fmt.Sprintf("%d steps, sum %016x", w.conductor.steps, w.conductor.sum), err
}

// TestRunsRepeat runs seeds in processes of their own and compares what happened in
// them, step by step: also a seed that runs alone with the same one after others.
func TestRunsRepeat(t *testing.T) {
	t.Parallel()
	const others = 4
	run := func(args ...string) string {
		cmd := exec.Command(os.Args[0], append([]string{"-test.run", "^TestSimulation$", "-test.v"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	account := func(out string, seed int) string {
		_, line, _ := strings.Cut(out, fmt.Sprintf("seed %d: ", seed))
		line, _, _ = strings.Cut(line, "\n")
		return line
	}
	after := run("-from", "0", "-seeds", strconv.Itoa(others))
	for _, seed := range []int{2, 3} { // the first has two servers, the second the stream path and a formula
		alone := account(run("-seed", strconv.Itoa(seed)), seed)
		if !strings.Contains(alone, "steps") {
			t.Fatalf("the run says nothing of itself: %q", alone)
		}
		if again := account(run("-seed", strconv.Itoa(seed)), seed); again != alone {
			t.Errorf("seed %d alone: %s; and once more: %s", seed, alone, again)
		}
		if after := account(after, seed); after != alone {
			t.Errorf("seed %d alone: %s; after others: %s", seed, alone, after)
		}
	}
}

// TestMutantsAreFound builds one fault after the other in, and expects that one of the
// first seeds finds it. Each fault has a process of its own, as a process has one
// bubble only.
func TestMutantsAreFound(t *testing.T) {
	t.Parallel()
	for _, m := range mutants {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command(os.Args[0], inProcess(0, forMutant, "-mutant", string(m))...).CombinedOutput()
			if err == nil {
				t.Fatalf("%d seeds don't find it", forMutant)
			}
			seed, what, ok := strings.Cut(string(out), "promises are broken:")
			if !ok {
				t.Fatalf("the run ends with something else than a broken promise: %s", out)
			}
			t.Logf("%s: %.300s", seed[strings.LastIndex(seed, "seed"):], what)
		})
	}
}
