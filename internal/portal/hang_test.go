package portal

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

// TestOverviewWaitsNoLongerThanItsReader: while predictions are counted from a store that
// hangs, another request for the overview ends with its reader, and pages that don't
// need the store are answered.
func TestOverviewWaitsNoLongerThanItsReader(t *testing.T) {
	t.Parallel()
	hang, asked := make(chan struct{}), make(chan struct{}, 100)
	h := worldOver(t, 3, func(b store.Bucket) store.Bucket {
		return &storetest.Faulty{Bucket: b, Fail: func(op string, name fleetscore.BlobName) error {
			if op == "get" && strings.HasPrefix(string(name), "predictions/p/date=") {
				asked <- struct{}{}
				<-hang
			}
			return nil
		}}
	})
	first := make(chan int)
	go func() {
		status, _, _ := get(h, "/")
		first <- status
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	second := make(chan struct{})
	go func() {
		defer close(second)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx))
	}()
	select {
	case <-second:
	case <-time.After(20 * time.Second):
		t.Error("the second request waits although its reader is gone")
	}
	if status, _, _ := get(h, "/nowhere"); status != http.StatusNotFound {
		t.Errorf("another page: status %d", status)
	}
	close(hang)
	if status := <-first; status != http.StatusOK {
		t.Errorf("the first request: status %d", status)
	}
	<-second
}
