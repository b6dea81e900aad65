package table

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

// TestOneHangingReaderHoldsNoOther: while the store doesn't answer one reader of a
// table, another one waits no longer than its own context lets it.
func TestOneHangingReaderHoldsNoOther(t *testing.T) {
	t.Parallel()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		d := OpenDelta(&storetest.Faulty{Bucket: b, Fail: func(string, fleetscore.BlobName) error {
			<-answer
			return nil
		}})
		schema := DatasetSchema("TS", []string{"Device"}, []string{"Value"})
		first, others := make(chan error, 1), make(chan error, 3)
		go func() {
			first <- d.Create(context.Background(), schema)
		}()
		synctest.Wait() // it waits for the store
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := d.Snapshot(ctx)
			others <- err
		}()
		go func() {
			_, err := d.Commit(ctx, Commit{Txns: map[string]int64{"a": 1}})
			others <- err
		}()
		go func() { others <- d.Create(ctx, schema) }()
		synctest.Wait()
		cancel()
		for range cap(others) {
			if err := <-others; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want canceled", err)
			}
		}
		close(answer)
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}
