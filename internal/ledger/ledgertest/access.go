package ledgertest

import (
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// testSecrets: a token's secret is replaced by one caller at a time, who sees the token
// as it is; what a refused change did isn't kept; uses never move back.
func testSecrets(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	changed, stop := l.Watch(ledger.AccessTopic)
	defer stop()
	told := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Errorf("%s puts no event", what)
		}
	}
	first, second := sha256.Sum256([]byte("first")), sha256.Sum256([]byte("second"))
	if err := l.PutToken(ctx, ledger.Token{ID: "a", Name: "press", Role: fleetscore.RoleDevice, Hash: first, Created: noon, Repositories: []string{"team/*", "other"}}); err != nil {
		t.Fatal(err)
	}
	told("a new token")
	if err := l.ChangeToken(ctx, "nobody", func(*ledger.Token) error { return nil }); !fleetscore.NotFound.Is(err) {
		t.Errorf("a token that isn't there: %v, want kind not_found", err)
	}
	no := errors.New("no")
	if err := l.ChangeToken(ctx, "press", func(x *ledger.Token) error { x.Hash = second; return no }); !errors.Is(err, no) {
		t.Errorf("a refused change: %v", err)
	}
	if err := l.ChangeToken(ctx, "press", func(x *ledger.Token) error {
		x.Old = ledger.OldSecret{Hash: x.Hash, Until: noon.Add(time.Hour), Used: x.Used}
		x.Hash, x.Rotated, x.Expires = second, noon.Add(time.Minute), noon.Add(24*time.Hour)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	told("a changed token")
	for _, at := range []time.Duration{2 * time.Hour, time.Hour} {
		if err := l.TokensUsed(ctx, map[string]ledger.TokenUse{"a": {Old: noon.Add(at)}, "gone": {Current: noon}}); err != nil {
			t.Fatal(err)
		}
	}
	want := []ledger.Token{{ID: "a", Name: "press", Role: fleetscore.RoleDevice, Repositories: []string{"team/*", "other"}, Hash: second, Created: noon, Rotated: noon.Add(time.Minute), Expires: noon.Add(24 * time.Hour),
		Old: ledger.OldSecret{Hash: first, Until: noon.Add(time.Hour), Used: noon.Add(2 * time.Hour)}}}
	if d := cmp.Diff(want, must[[]ledger.Token](t)(l.Tokens(ctx))); d != "" {
		t.Errorf("tokens (-want +got):\n%s", d)
	}
	if err := l.RemoveToken(ctx, "press"); err != nil {
		t.Error(err)
	}
	told("a removed token")
}

// testSessions: a session is taken once; the ones whose last use is the longest ago make
// room; those that have ended or weren't used are removed.
func testSessions(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	named := func(name string, link bool, seen time.Duration) ledger.Session {
		return ledger.Session{ID: sha256.Sum256([]byte(name)), Link: link, Who: `{"name": "` + name + `"}`, Begun: noon, Seen: noon.Add(seen), Ends: noon.Add(24 * time.Hour)}
	}
	a, b, c, link := named("a", false, time.Minute), named("b", false, 0), named("c", false, 2*time.Minute), named("link", true, 0)
	for _, s := range []ledger.Session{link, a, b, c} {
		if err := l.PutSession(ctx, s, 2); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(when string, want ...ledger.Session) {
		t.Helper()
		if d := cmp.Diff(want, must[[]ledger.Session](t)(l.Sessions(ctx))); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	holds("at most two", c, a, link)
	for _, at := range []time.Duration{time.Hour, time.Second} {
		if err := l.SessionsSeen(ctx, map[[32]byte]time.Time{a.ID: noon.Add(at), b.ID: noon.Add(at)}); err != nil {
			t.Fatal(err)
		}
	}
	a.Seen = noon.Add(time.Hour)
	holds("a was used", a, c, link)
	if got := must[ledger.Session](t)(l.TakeSession(ctx, link.ID)); got != link {
		t.Errorf("took %+v, want %+v", got, link)
	}
	if _, err := l.TakeSession(ctx, link.ID); !fleetscore.NotFound.Is(err) {
		t.Errorf("taken twice: %v, want kind not_found", err)
	}
	if err := l.RemoveSessions(ctx, noon, noon.Add(30*time.Minute)); err != nil {
		t.Fatal(err)
	}
	holds("c wasn't used", a)
	if err := l.RemoveSessions(ctx, noon.Add(24*time.Hour), time.Time{}); err != nil {
		t.Fatal(err)
	}
	holds("a ended")
}
