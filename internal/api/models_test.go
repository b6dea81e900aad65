package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/fleet/syncer"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
)

// zeros is a body of the given number of bytes that takes no memory.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), z.left))
	clear(p[:n])
	z.left -= int64(n)
	return n, nil
}

// TestUploadTakesNoMemory: a model is written to the store while it arrives; a model
// that is too large or empty leaves nothing there. The test measures allocations, so
// it runs alone.
func TestUploadTakesNoMemory(t *testing.T) {
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := fleetscore.Config{Hub: fleetscore.HubConfig{Key: []string{"D"}}, Fleets: map[string]fleetscore.FleetConfig{"f": {Path: "models/f", Model: "m_{D}"}}}
	if _, err := l.PutConfig(t.Context(), time.Now(), "", cfg); err != nil {
		t.Fatal(err)
	}
	fleets, err := syncer.New(syncer.Config{TempDir: t.TempDir()}, syncer.Deps{Ledger: l, Store: b})
	if err != nil {
		t.Fatal(err)
	}
	const limit = 64 << 20
	control, err := access.Open(t.Context(), access.Config{Local: "sesame"}, access.Deps{Ledger: l})
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{MaxUploadBytes: limit}, Deps{Access: control, Ledger: l, Store: b, Fleets: fleets, Gateway: http.NotFoundHandler(),
		Queries: func() []aggregator.Status { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		size   int64
		status int
	}{{"m_1", limit, 200}, {"m_2", limit + 1, 413}, {"m_3", 1 << 40, 413}, {"m_4", 0, 400}} {
		r := httptest.NewRequest(http.MethodPut, Prefix+"/fleets/f/models/"+tt.name, io.NopCloser(&zeros{tt.size}))
		r.ContentLength = -1 // as chunks of unknown number
		r.Header.Set("Authorization", "Bearer sesame")
		w := httptest.NewRecorder()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		h.ServeHTTP(w, r)
		runtime.ReadMemStats(&after)
		if w.Code != tt.status {
			t.Errorf("%s: got %d %s, want %d", tt.name, w.Code, strings.TrimSpace(w.Body.String()), tt.status)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("%s: an upload of %d MB took %d MB", tt.name, min(tt.size, limit)>>20, used>>20)
		}
		i, err := b.Stat(t.Context(), fleetscore.BlobName("models/f/"+tt.name))
		if there := err == nil; there != (tt.status == 200) || there && i.SizeBytes != tt.size {
			t.Errorf("%s: %d bytes in the store, %v", tt.name, i.SizeBytes, err)
		}
	}
}
