package access

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

func rotate(t *testing.T, d *Control, name string, overlap time.Duration, expires time.Time) (ledger.Token, string) {
	t.Helper()
	tok, text, err := d.Rotate(t.Context(), name, overlap, expires)
	if err != nil {
		t.Fatal(err)
	}
	return tok, text
}

// signedIn signs a browser in by a token and returns its cookie.
func signedIn(t *testing.T, d *Control, text string) string {
	t.Helper()
	w := httptest.NewRecorder()
	if why := d.SignIn(w, httptest.NewRequest(http.MethodPost, "/sign-in", nil), text); why != nil {
		t.Fatal(why)
	}
	cookie, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
	return cookie
}

// TestRotate: during the overlap both secrets are valid and the last use of the old one
// is seen; then only the new one is. No overlap refuses all older secrets at once, with
// the browsers that were signed in by them. The token's life begins anew.
func TestRotate(t *testing.T) {
	t.Parallel()
	d, m, c, l := world(t, Config{})
	first := create(t, d, fleetscore.RoleViewer, "anna", noon.Add(10*24*time.Hour))
	valid := func(text string) bool {
		return ask(m, routes[fleetscore.RoleViewer], "Authorization", "Bearer "+text).Code == http.StatusOK
	}
	in := func(cookie string) bool {
		return ask(m, routes[fleetscore.RoleViewer], "Cookie", cookie).Code == http.StatusOK
	}
	byFirst := signedIn(t, d, first)
	c.add(24 * time.Hour)
	tok, second := rotate(t, d, "anna", time.Hour, time.Time{})
	if want := noon.Add(11 * 24 * time.Hour); !tok.Expires.Equal(want) || !tok.Old.Until.Equal(noon.Add(25*time.Hour)) {
		t.Errorf("it expires %v and the old secret %v, want %v and an hour from now", tok.Expires, tok.Old.Until, want)
	}
	if got := d.List()[0]; !got.Old.Used.IsZero() || !got.Used.IsZero() {
		t.Errorf("uses before anybody used it: %+v", got)
	}
	c.add(90 * time.Second)
	if !valid(first) || !valid(second) {
		t.Error("both secrets should be valid")
	}
	if got := d.List()[0].Old.Used; !got.Equal(noon.Add(24*time.Hour + time.Minute)) {
		t.Errorf("the old secret was used %v", got)
	}
	if _, _, err := d.Rotate(t.Context(), "anna", time.Hour, time.Time{}); !fleetscore.Conflict.Is(err) {
		t.Errorf("a third secret: %v, want kind conflict", err)
	}
	again, err := Open(t.Context(), Config{}, Deps{Ledger: l, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{first, second} {
		if _, ok := again.byToken(text); !ok {
			t.Error("a restart forgets a secret")
		}
	}
	c.add(time.Hour)
	if valid(first) || !valid(second) || in(byFirst) {
		t.Error("after the overlap only the new secret should be valid")
	}
	bySecond := signedIn(t, d, second)
	_, third := rotate(t, d, "anna", time.Minute, time.Time{})
	if !in(bySecond) {
		t.Error("a session ends although its secret is still valid")
	}
	tok, fourth := rotate(t, d, "anna", 0, noon.Add(50*24*time.Hour))
	if valid(second) || valid(third) || !valid(fourth) || in(bySecond) || !tok.Expires.Equal(noon.Add(50*24*time.Hour)) {
		t.Errorf("without overlap only the last secret should be valid; it expires %v", tok.Expires)
	}
	for what, err := range map[string]error{
		"nobody's token":     second3(d.Rotate(t.Context(), "nobody", time.Hour, time.Time{})),
		"a negative time":    second3(d.Rotate(t.Context(), "anna", -1, time.Time{})),
		"an end in the past": second3(d.Rotate(t.Context(), "anna", 0, noon)),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	c.add(60 * 24 * time.Hour)
	if _, _, err := d.Rotate(t.Context(), "anna", time.Hour, time.Time{}); !fleetscore.Conflict.Is(err) {
		t.Errorf("an expired token: %v, want kind conflict", err)
	}
}

func second3(_ ledger.Token, _ string, err error) error { return err }

// TestRotateUnderLoad: while clients send requests all the time, a token's secret is
// replaced again and again, and no request is refused.
func TestRotateUnderLoad(t *testing.T) {
	t.Parallel()
	d, m, c, _ := world(t, Config{})
	var current atomic.Value // of string, the secret that new requests take
	current.Store(create(t, d, fleetscore.RoleDevice, "press", time.Time{}))
	server := httptest.NewServer(m)
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var sent, refused atomic.Int64
	var clients sync.WaitGroup
	var taken [8]atomic.Value // the secret that each client sent last, and got its answer
	for i := range taken {
		taken[i].Store("")
		clients.Go(func() {
			for ctx.Err() == nil {
				secret := current.Load().(string)
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/api/v1/hubs/hub/messages", nil)
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Authorization", "Bearer "+secret)
				resp, err := server.Client().Do(r)
				if err != nil {
					continue // ctx ended
				}
				resp.Body.Close()
				if sent.Add(1); resp.StatusCode != http.StatusOK {
					refused.Add(1)
				}
				taken[i].Store(secret)
			}
		})
	}
	for range 20 {
		_, text := rotate(t, d, "press", time.Hour, time.Time{})
		current.Store(text)
		for i := range taken {
			for taken[i].Load() != text {
				if err := d.readTokens(t.Context()); err != nil { // as an event of another server does
					t.Fatal(err)
				}
			}
		}
		c.add(time.Hour) // the overlap ends
	}
	cancel()
	clients.Wait()
	if n := refused.Load(); n > 0 || sent.Load() < 160 {
		t.Errorf("%d of %d requests were refused", n, sent.Load())
	}
}

// TestServersOfOneLedger: what happens at one server counts at the other: tokens that
// are made, replaced and removed, sessions, signing out, and links, which work once in
// all.
func TestServersOfOneLedger(t *testing.T) {
	t.Parallel()
	a, _, c, l := world(t, Config{KeepSessions: true})
	b, err := Open(t.Context(), Config{KeepSessions: true}, Deps{Ledger: l, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, d := range []*Control{a, b} {
		running.Go(func() {
			if err := d.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	m := muxOf(b)
	get := func(header, value string) int { return ask(m, routes[fleetscore.RoleViewer], header, value).Code }
	becomes := func(what, header, value string, want bool) {
		t.Helper()
		limit := time.Now().Add(10 * time.Second)
		for (get(header, value) == http.StatusOK) != want {
			if time.Now().After(limit) {
				t.Fatalf("%s: %d", what, get(header, value))
			}
		}
	}
	text := create(t, a, fleetscore.RoleViewer, "anna", time.Time{})
	becomes("a token made at the other server", "Authorization", "Bearer "+text, true)
	cookie := signedIn(t, a, text)
	if got := get("Cookie", cookie); got != http.StatusOK {
		t.Errorf("signed in at the other server: %d", got)
	}
	r := httptest.NewRequest(http.MethodPost, "/sign-out", nil)
	r.Header.Set("Cookie", cookie)
	if why := a.SignOut(httptest.NewRecorder(), r); why != nil {
		t.Fatal(why)
	}
	becomes("signed out at the other server", "Cookie", cookie, false)
	_, fresh := rotate(t, a, "anna", 0, time.Time{})
	becomes("replaced at the other server", "Authorization", "Bearer "+fresh, true)
	becomes("refused at the other server", "Authorization", "Bearer "+text, false)

	code, err := a.LocalLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var worked atomic.Int64
	var both sync.WaitGroup
	for i := range 8 {
		both.Go(func() {
			if (map[int]*Control{0: a, 1: b})[i%2].Redeem(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), code) == nil {
				worked.Add(1)
			}
		})
	}
	both.Wait()
	if n := worked.Load(); n != 1 {
		t.Errorf("a link worked %d times", n)
	}

	keep := signedIn(t, a, fresh)
	restarted, err := Open(t.Context(), Config{KeepSessions: true}, Deps{Ledger: l, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(muxOf(restarted), routes[fleetscore.RoleViewer], "Cookie", keep).Code; got != http.StatusOK {
		t.Errorf("a session after a restart: %d", got)
	}
	if err := a.Remove(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	becomes("removed at the other server", "Authorization", "Bearer "+fresh, false)
	becomes("signed in by a removed token", "Cookie", keep, false)
	if _, err := Open(t.Context(), Config{}, Deps{Ledger: l, Now: c.now}); err != nil {
		t.Fatal(err)
	}
	if left, err := l.Sessions(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("a server that keeps no sessions leaves %d of them, %v", len(left), err)
	}
}

// TestUnknownCookies: cookies that nobody knows cause few reads of the ledger, however
// many requests bring them.
func TestUnknownCookies(t *testing.T) {
	t.Parallel()
	_, _, c, l := world(t, Config{})
	counted := &countingLedger{Ledger: l}
	d, err := Open(t.Context(), Config{}, Deps{Ledger: counted, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	before, begun := counted.sessions.Load(), time.Now()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, ok, err := d.bySession(t.Context(), Secret()); ok || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
		})
	}
	all.Wait()
	if n, most := counted.sessions.Load()-before, 1+int64(time.Since(begun)/gather); n > most {
		t.Errorf("%d reads, want at most %d", n, most)
	}
}

type countingLedger struct {
	Ledger
	sessions atomic.Int64
}

func (l *countingLedger) Sessions(ctx context.Context) ([]ledger.Session, error) {
	l.sessions.Add(1)
	return l.Ledger.Sessions(ctx)
}
