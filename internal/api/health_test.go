package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// TestHealth: everybody sees the status, only callers with a token see the reasons; a
// warning alone isn't a failure; a ledger that fails is noticed because the check
// reads from it.
func TestHealth(t *testing.T) {
	t.Parallel()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	health := &obs.Health{}
	control, err := access.Open(t.Context(), access.Config{Local: "sesame"}, access.Deps{Ledger: l})
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{}, Deps{Access: control, Ledger: l, Health: health, Gateway: http.NotFoundHandler(),
		Queries: func() []aggregator.Status { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	check := func(step, token string, status int, parts ...string) {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, Prefix+"/health", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var got Health
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s: %s: %v", step, w.Body, err)
		}
		want := map[int]string{200: "ok", 503: "failing"}[status]
		if w.Code != status || got.Status != want || len(got.Problems) != len(parts) {
			t.Errorf("%s: got %d %+v, want %d with %q", step, w.Code, got, status, parts)
			return
		}
		for i, p := range got.Problems {
			if p.Part != parts[i] {
				t.Errorf("%s: got %+v, want %q", step, got.Problems, parts)
			}
		}
	}
	check("well", "sesame", 200)
	health.Warn("disk", "nearly full")
	check("warned", "sesame", 200, "disk")
	health.Report("query readings", "stands still")
	check("failing", "sesame", 503, "query readings", "disk")
	check("failing, without token", "", 503)
	check("failing, wrong token", "guess", 503)
	health.Report("query readings", "")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	check("no ledger", "sesame", 503, "ledger", "disk")
}
