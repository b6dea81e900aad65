package fleet

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
	"github.com/fleetscore/fleetscore/sklearn"
)

// weighed measures how much memory is in use when a segment is written.
type weighed struct {
	store.Bucket
	most *atomic.Uint64
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (w weighed) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (store.Info, error) {
	if strings.HasPrefix(string(name), segmentArea) {
		w.most.Store(max(w.most.Load(), heap()))
	}
	return w.Bucket.Put(ctx, name, body, opt)
}

// TestRecordsTakeNoMemory: small compressed files whose records are a thousand times
// as large don't lie in memory together, and the pack holds them all the same. It
// measures memory, so it runs alone.
func TestRecordsTakeNoMemory(t *testing.T) {
	const models, features = 24, 1_000_000
	src, dst, temp := dir(t), dir(t), t.TempDir()
	for i := range models {
		data := testkit.GrowingModel(features, float64(i))
		if len(data) > 64<<10 {
			t.Fatalf("a file has %d bytes", len(data))
		}
		put(t, src, fmt.Sprintf("model_%d_0", i), data)
	}
	put(t, src, "model_99_0", variants(t)(1))
	var most atomic.Uint64
	before := heap()
	c, err := Sync(t.Context(), src, weighed{dst, &most}, spec, Options{TempDir: temp, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	if used := int64(most.Load() - before); most.Load() == 0 || used > 32<<20 {
		t.Errorf("records of %d MB take %d MB of memory when they are written", models*features*8>>20, used>>20)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("%d files are left in the folder for temporary files, %v", len(left), err)
	}
	if c.Generation.Members != models+1 || c.Generation.Health.Native != models+1 {
		t.Fatalf("%+v", c.Generation.Health)
	}
	p := open(t, dst, c.Generation, fleetscore.AllShards, maxHeldBytes)
	rows := [][]float64{make([]float64, features)}
	for _, i := range []int{0, 7, models - 1} {
		data, _, err := p.Model(t.Context(), fleetscore.Key(fmt.Sprintf("%d\x1f0", i)))
		if err != nil {
			t.Fatal(err)
		}
		m, err := sklearn.Load(data)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := m.Predict(rows); err != nil || got[0] != float64(i) {
			t.Errorf("model %d predicts %v, %v", i, got, err)
		}
	}
}

// TestGrowingFilesTakeTurns: what a compressed file may become is charged to the
// budget that all syncs share, before it is loaded.
func TestGrowingFilesTakeTurns(t *testing.T) {
	t.Parallel()
	src, dst := dir(t), dir(t)
	put(t, src, "model_0_0", testkit.GrowingModel(1_000_000, 1))
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		if !m.loading.TryAcquire(loadedAtOnce) {
			t.Fatal("the budget is smaller than it says")
		}
		done := make(chan *Change, 1)
		go func() {
			c, err := Sync(t.Context(), src, dst, spec, Options{Memory: m})
			if err != nil {
				t.Error(err)
			}
			done <- c
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("a file that becomes large is loaded although others take the whole budget")
		default:
		}
		m.loading.Release(loadedAtOnce)
		if c := <-done; c == nil || c.Generation.Health.Native != 1 {
			t.Errorf("got %+v", c)
		}
		if !m.loading.TryAcquire(loadedAtOnce) || !m.held.TryAcquire(heldAtOnce) {
			t.Error("the budget isn't given back")
		}
	})
}

// TestChoicesAllocateNothing: a million models of a few kinds are counted without work for
// each, so that the server answers its nodes meanwhile.
func TestChoicesAllocateNothing(t *testing.T) {
	d := newDoctor()
	e := Entry{Key: "1", Name: "model_1", Flags: Native, Detail: "OneClassSVM" + detailSeparator + "1.9.1" + detailSeparator + "1"}
	for range MaxExamples {
		d.choose(&e)
	}
	if n := testing.AllocsPerRun(1000, func() { d.choose(&e) }); n != 0 {
		t.Errorf("%g allocations for each model", n)
	}
	var sensors int64
	for _, c := range d.health().Runtimes {
		sensors += c.Sensors
	}
	if want := int64(MaxExamples + 1001); sensors != want {
		t.Errorf("%d sensors are counted, want %d", sensors, want)
	}
}
