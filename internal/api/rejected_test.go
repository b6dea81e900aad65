package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// TestAllRejected: all messages are handed over again or dropped, however many there are, although
// each one that is done is gone when the next page is read.
func TestAllRejected(t *testing.T) {
	t.Parallel()
	var l ledger.Ledger
	answer := asks(t, func(opened ledger.Ledger) Deps {
		l = opened
		return Deps{Ledger: l, Redrive: func(ctx context.Context, r ledger.Rejected) (string, error) {
			_, err := l.RemoveRejected(ctx, r)
			return "", err
		}}
	})
	const many = 250
	fill := func() {
		t.Helper()
		list := make([]ledger.Rejected, many)
		for i := range list {
			list[i] = ledger.Rejected{Source: fleetscore.SourceMQTT, Topic: "t", Reason: "r", Arrived: time.Now(), Text: fmt.Append(nil, i)}
		}
		if err := l.PutRejected(t.Context(), list, ledger.RejectsBound{}); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(method, path, body string, status int) (out struct {
		Taken, Dropped int
		Items          []Rejected
		Next           string
	}) {
		t.Helper()
		w := answer(method, path, body)
		if w.Code != status {
			t.Fatalf("%s %s: %d, want %d: %s", method, path, w.Code, status, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	fill()
	if got := ask(http.MethodPost, "/rejected/redrive", `{"all": true}`, 200); got.Taken != many {
		t.Errorf("%d of %d were handed over again", got.Taken, many)
	}
	fill()
	seen := map[string]bool{}
	for next := ""; ; {
		page := ask(http.MethodGet, "/rejected?limit=60&before="+url.QueryEscape(next), "", 200)
		for _, r := range page.Items {
			seen[r.ID] = true
		}
		if next = page.Next; next == "" {
			break
		}
		_, id, _ := strings.Cut(next, "/")
		ask(http.MethodPost, "/rejected/drop", fmt.Sprintf(`{"ids": [%q]}`, id), 200) // the last one of the page
	}
	if len(seen) != many {
		t.Errorf("pages with %d of %d messages", len(seen), many)
	}
	fill()
	if got := ask(http.MethodPost, "/rejected/drop", `{"all": true}`, 200); got.Dropped != many {
		t.Errorf("%d of %d were dropped", got.Dropped, many)
	}
	ask(http.MethodGet, "/rejected?before=x", "", 400)
}
