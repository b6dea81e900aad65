package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/images"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
)

// endingJob is a ledger whose job leaves its note and ends just when jobs are listed.
type endingJob struct {
	ledger.Ledger
	end func() error
}

func (e endingJob) Jobs(context.Context, ledger.JobFilter) ([]fleetscore.Job, error) {
	return nil, e.end()
}

// collector notes what is cited.
type collector struct {
	Images
	cited map[string]string
}

func (c *collector) GC(_ context.Context, cited map[string]string, _ bool) (images.Collected, error) {
	c.cited = cited
	return images.Collected{}, nil
}

// asks makes an API over a new ledger, and returns what asks it as an administrator.
func asks(t *testing.T, deps func(ledger.Ledger) Deps) func(method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d := deps(l)
	d.Gateway = http.NotFoundHandler()
	if d.Access, err = access.Open(t.Context(), access.Config{Local: "sesame"}, access.Deps{Ledger: l}); err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{}, d)
	if err != nil {
		t.Fatal(err)
	}
	return func(method, path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, Prefix+path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer sesame")
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
}

// TestImageOfAJobThatEnds: the image of a job is kept that ends while images are collected.
func TestImageOfAJobThatEnds(t *testing.T) {
	t.Parallel()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const digest = "sha256:abc"
	tables, c := catalog.New(b), &collector{}
	ask := asks(t, func(l ledger.Ledger) Deps {
		ending := endingJob{l, func() error {
			return tables.NoteImage(t.Context(), "p", catalog.ImageNote{Job: "j", Image: "reg/x@" + digest, Interval: fleetscore.Interval{To: time.Now()}})
		}}
		return Deps{Ledger: ending, Store: b, Catalog: tables, Images: c}
	})
	if w := ask(http.MethodPost, "/images/gc", `{"dry_run": false}`); w.Code != http.StatusOK || !strings.Contains(c.cited[digest], "job j") {
		t.Errorf("%d %s: cited are %v, want the job's image", w.Code, w.Body, c.cited)
	}
}
