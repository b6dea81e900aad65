package cli

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestPowerCut copies the disk's blocks, as a power cut would leave them, at random
// instants while readings come and jobs run. A server started on each copy holds
// every reading that was acknowledged before the copy in exactly one row, ends every
// job, and scores every row once.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	cuts := 3
	if n, err := strconv.Atoi(os.Getenv("FLEETSCORE_CRASH_ROUNDS")); err == nil {
		cuts = n
	}
	yaml := fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models"))
	var disk *testkit.Disk
	p := startServerIn(t, yaml, func(dir string) { disk = testkit.NewDisk(t, filepath.Join(dir, "data")) })

	type cut struct {
		image string
		sent  map[string]int64 // what was acknowledged before
	}
	var list []cut
	var mu sync.Mutex
	sent := map[string]int64{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		send(ctx, t, p.Client, func(id string) {
			mu.Lock()
			defer mu.Unlock()
			sent[id]++
		})
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = p.Post(ctx, "/jobs", map[string]string{"pipeline": "anomalies"}, nil) // refused while nothing is new
			pause(ctx, 300*time.Millisecond)
		}
	})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range cuts {
		pause(ctx, 700*time.Millisecond+time.Duration(rnd.IntN(1500))*time.Millisecond)
		mu.Lock()
		before := maps.Clone(sent)
		mu.Unlock()
		list = append(list, cut{disk.Cut(), before})
	}
	cancel()
	wg.Wait()
	p.stop()

	for i, c := range list {
		if len(c.sent) == 0 {
			t.Errorf("nothing was acknowledged before cut %d, so it shows nothing", i)
		}
		var unmount func()
		after := startServerIn(t, yaml, func(dir string) { unmount = disk.Mount(c.image, filepath.Join(dir, "data")) })
		after.settle(c.sent)
		after.checkPowerCut(i, c.sent, sent)
		after.stop()
		unmount()
	}
	t.Logf("%d acknowledged readings, %d power cuts", sum(sent), len(list))
}

// checkPowerCut compares the rows with what was acknowledged before the cut, and
// with all that was ever sent: a reading may have been stored without its
// acknowledgement.
func (p *process) checkPowerCut(n int, before, all map[string]int64) {
	p.t.Helper()
	got := p.readings()
	for id, want := range before {
		if got[id] < want {
			p.t.Errorf("cut %d: %d of %d acknowledged readings of %s are in rows", n, got[id], want, id)
		}
	}
	for id, have := range got {
		if have > all[id] {
			p.t.Errorf("cut %d: %d readings of %s are in rows, only %d were sent", n, have, id, all[id])
		}
	}
	p.checkScored("anomalies", got)
	p.t.Logf("cut %d: %d readings were acknowledged, %d are in %d rows", n, sum(before), sum(got), len(got))
}
