package access

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// clock is a time that tests can change.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func control(t *testing.T, cfg Config) *Control {
	t.Helper()
	d, err := Open(t.Context(), cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// world is a Control over a ledger, with a mux of one route per role.
func world(t *testing.T, cfg Config) (*Control, *Mux, *clock, ledger.Ledger) {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &clock{at: noon}
	d, err := Open(t.Context(), cfg, Deps{Ledger: l, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return d, muxOf(d), c, l
}

// routes are examples of each role.
var routes = map[fleetscore.Role]string{
	fleetscore.RoleDevice: "/api/v1/hubs/{hub}/messages", fleetscore.RoleViewer: "GET /api/v1/config", fleetscore.RoleOperator: "POST /api/v1/jobs",
	fleetscore.RoleAdministrator: "PUT /api/v1/config", fleetscore.RoleNode: "POST /api/v1/nodes",
	fleetscore.RoleImagePull: "GET /v2/{name...}", fleetscore.RoleImagePush: "POST /v2/{name...}",
}

func muxOf(d *Control) *Mux {
	m := d.NewMux(func(w http.ResponseWriter, _ *http.Request, why *Refusal) { http.Error(w, why.Message, why.Status) })
	for _, pattern := range routes {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Caller", CallerOf(r.Context()).Name) })
	}
	return m
}

// ask sends a request for a pattern, with pairs of headers.
func ask(m http.Handler, pattern string, header ...string) *httptest.ResponseRecorder {
	method, target, ok := strings.Cut(pattern, " ")
	if !ok {
		method, target = http.MethodPost, pattern
	}
	r := httptest.NewRequest(method, strings.NewReplacer("{hub}", "hub").Replace(target), nil)
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	return w
}

func create(t *testing.T, d *Control, role fleetscore.Role, name string, expires time.Time) string {
	t.Helper()
	_, text, err := d.Create(t.Context(), role, name, expires)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestTokensOpenTheirDoorsOnly: every role at every route; tokens survive a restart,
// are kept as hashes, end when they expire or are removed, and several of one role
// work at once.
func TestTokensOpenTheirDoorsOnly(t *testing.T) {
	t.Parallel()
	d, m, c, l := world(t, Config{Local: "local-secret", Node: "node-secret"})
	tokens := map[fleetscore.Role]string{}
	for _, role := range fleetscore.Roles {
		tokens[role] = create(t, d, role, "one-"+string(role), time.Time{})
	}
	check := func(m *Mux) {
		t.Helper()
		for role, text := range tokens {
			for need, pattern := range routes {
				want := http.StatusForbidden
				if role.May(need) {
					want = http.StatusOK
				}
				if w := ask(m, pattern, "Authorization", "Bearer "+text); w.Code != want {
					t.Errorf("%s at %s: %d, want %d", role, pattern, w.Code, want)
				}
			}
		}
		for _, wrong := range []string{"", "x", "fst_", "fst_x_y", tokens[fleetscore.RoleViewer] + "x", tokens[fleetscore.RoleViewer][:40]} {
			if w := ask(m, routes[fleetscore.RoleViewer], "Authorization", "Bearer "+wrong); w.Code != http.StatusUnauthorized {
				t.Errorf("token %q: %d", wrong, w.Code)
			}
		}
	}
	check(m)
	if w := ask(m, routes[fleetscore.RoleViewer]); w.Code != http.StatusUnauthorized {
		t.Errorf("no token: %d", w.Code)
	}
	for text, name := range map[string]string{"local-secret": Local, "node-secret": Pool} {
		pattern := routes[fleetscore.RoleAdministrator]
		if name == Pool {
			pattern = routes[fleetscore.RoleNode]
		}
		if w := ask(m, pattern, "Authorization", "Bearer "+text); w.Code != http.StatusOK || w.Header().Get("Caller") != name {
			t.Errorf("%s: %d as %q", name, w.Code, w.Header().Get("Caller"))
		}
	}

	again, err := Open(t.Context(), Config{}, Deps{Ledger: l, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	check(muxOf(again))

	kept, err := l.Tokens(t.Context())
	if err != nil || len(kept) != len(tokens) {
		t.Fatal(kept, err)
	}
	for _, k := range kept {
		if sum(k.Hash) != sumOf(tokens[k.Role]) {
			t.Errorf("%s isn't kept as its hash", k.Name)
		}
	}

	short := create(t, d, fleetscore.RoleViewer, "short", noon.Add(time.Hour))
	viewer := func(text string) int {
		return ask(m, routes[fleetscore.RoleViewer], "Authorization", "Bearer "+text).Code
	}
	if viewer(short) != http.StatusOK {
		t.Error("a second viewer's token isn't accepted")
	}
	c.add(time.Hour)
	if viewer(short) != http.StatusUnauthorized {
		t.Error("an expired token is accepted")
	}
	if err := d.Remove(t.Context(), "one-viewer"); err != nil {
		t.Fatal(err)
	}
	if viewer(tokens[fleetscore.RoleViewer]) != http.StatusUnauthorized {
		t.Error("a removed token is accepted")
	}
	for _, name := range []string{"", "a b", "a.b", strings.Repeat("x", 65), Local} {
		if _, _, err := d.Create(t.Context(), fleetscore.RoleNode, name, time.Time{}); !fleetscore.Invalid.Is(err) {
			t.Errorf("a token named %q: %v", name, err)
		}
	}
	if _, _, err := d.Create(t.Context(), "root", "x", time.Time{}); !fleetscore.Invalid.Is(err) {
		t.Errorf("a token of an unknown role: %v", err)
	}
	if _, _, err := d.Create(t.Context(), fleetscore.RoleNode, "short", time.Time{}); !fleetscore.Conflict.Is(err) {
		t.Errorf("a second token of one name: %v", err)
	}
}

// TestLastUse: the last use is known at once, to the hour, and is in the ledger after
// Run ended.
func TestLastUse(t *testing.T) {
	t.Parallel()
	d, m, c, l := world(t, Config{})
	text := create(t, d, fleetscore.RoleViewer, "anna", time.Time{})
	if got := d.List(); !got[0].Used.IsZero() {
		t.Errorf("never used: %v", got)
	}
	c.add(90 * time.Minute)
	ask(m, routes[fleetscore.RoleViewer], "Authorization", "Bearer "+text)
	want := noon.Add(time.Hour)
	if got := d.List(); !got[0].Used.Equal(want) {
		t.Errorf("used %v, want %v", got[0].Used, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if kept, err := l.Tokens(t.Context()); err != nil || !kept[0].Used.Equal(want) {
		t.Errorf("the ledger says %v, %v; want %v", kept, err, want)
	}
}

// TestOwnNodesOnly: a token of nodes is valid for its own nodes only, whose names no
// other token's nodes can have.
func TestOwnNodesOnly(t *testing.T) {
	t.Parallel()
	lab := Caller{Role: fleetscore.RoleNode, Name: "lab", via: viaToken}
	pool := Caller{Role: fleetscore.RoleNode, Name: Pool}
	admin := Caller{Role: fleetscore.RoleAdministrator, Name: Local}
	for _, c := range []struct {
		caller Caller
		node   string
		want   bool
	}{
		{lab, "lab.cpu-1", true}, {lab, "cpu-1", false}, {lab, "lab-2.cpu-1", false}, {lab, "lab", false}, {lab, "", false},
		{pool, "cpu-1", true}, {pool, "lab.cpu-1", false}, {admin, "cpu-1", false}, {Caller{}, "cpu-1", false},
	} {
		if got := c.caller.Owns(fleetscore.NodeID(c.node)); got != c.want {
			t.Errorf("%s owns %q: %v, want %v", c.caller.Name, c.node, got, c.want)
		}
	}
	if name := lab.NodePrefix() + "x"; !lab.Owns(fleetscore.NodeID(name)) {
		t.Errorf("lab doesn't own %s", name)
	}
}

// TestForeignPages: the requests that are accepted from a page of another site, or
// from a page whose own name points to this machine.
func TestForeignPages(t *testing.T) {
	t.Parallel()
	d, m, _, _ := world(t, Config{Local: "local", Loopback: true})
	w := httptest.NewRecorder()
	d.begin(w, httptest.NewRequest(http.MethodGet, "/", nil), Caller{Role: fleetscore.RoleAdministrator, Name: Local})
	cookie, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
	change, read := routes[fleetscore.RoleOperator], routes[fleetscore.RoleViewer]
	for _, c := range []struct {
		pattern string
		header  []string
		want    int
	}{
		{read, []string{"Cookie", cookie}, 200},
		{change, []string{"Cookie", cookie, "Sec-Fetch-Site", "same-origin"}, 200},
		{change, []string{"Cookie", cookie, "Origin", "http://127.0.0.1:7180"}, 200},
		{change, []string{"Cookie", cookie}, 403},
		{change, []string{"Cookie", cookie, "Sec-Fetch-Site", "none"}, 403},
		{change, []string{"Cookie", cookie, "Sec-Fetch-Site", "cross-site"}, 403},
		{change, []string{"Cookie", cookie, "Sec-Fetch-Site", "same-site"}, 403},
		{change, []string{"Cookie", cookie, "Origin", "http://127.0.0.1:8080"}, 403},
		{change, []string{"Cookie", cookie, "Origin", "null"}, 403},
		{change, []string{"Authorization", "Bearer local", "Origin", "http://evil.example"}, 403},
		{change, []string{"Authorization", "Bearer local"}, 200},
		{read, []string{"Cookie", cookie, "Host", "evil.example"}, 421},
		{read, []string{"Cookie", cookie, "Host", "127.0.0.1.evil.example:7180"}, 421},
		{read, []string{"Cookie", cookie, "Host", "[::1]:7180"}, 200},
		{read, []string{"Cookie", cookie, "Host", "LOCALHOST"}, 200},
		{read, []string{"Cookie", cookie + "x"}, 401},
	} {
		header := c.header
		if !strings.Contains(strings.Join(header, " "), "Host") {
			header = append([]string{"Host", "127.0.0.1:7180"}, header...)
		}
		w := ask(m, c.pattern, header...)
		if w.Code != c.want {
			t.Errorf("%s with %q: %d, want %d", c.pattern, c.header, w.Code, c.want)
		}
		for _, h := range []string{"X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy", "X-Frame-Options"} {
			if w.Header().Get(h) == "" {
				t.Errorf("%s with %q: no %s", c.pattern, c.header, h)
			}
		}
	}
}

// TestSessionsEnd: sessions end after a time without use, at their greatest age, when
// their token ends, and by signing out.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	d, m, c, _ := world(t, Config{})
	text := create(t, d, fleetscore.RoleViewer, "anna", time.Time{})
	signIn := func() string {
		t.Helper()
		w := httptest.NewRecorder()
		if why := d.SignIn(w, httptest.NewRequest(http.MethodPost, "/sign-in", nil), text); why != nil {
			t.Fatal(why)
		}
		set := w.Header().Get("Set-Cookie")
		for _, part := range []string{"HttpOnly", "SameSite=Strict", "Path=/"} {
			if !strings.Contains(set, part) {
				t.Errorf("cookie %q isn't %s", set, part)
			}
		}
		cookie, _, _ := strings.Cut(set, ";")
		return cookie
	}
	in := func(cookie string) bool {
		return ask(m, routes[fleetscore.RoleViewer], "Cookie", cookie).Code == http.StatusOK
	}
	idle := signIn()
	c.add(sessionIdle - time.Minute)
	if !in(idle) {
		t.Error("a session ended early")
	}
	c.add(sessionIdle)
	if in(idle) {
		t.Error("a session without use doesn't end")
	}
	busy := signIn()
	for range int(sessionLife / time.Hour) {
		c.add(time.Hour)
		in(busy)
	}
	if in(busy) {
		t.Error("a session never ends while it is used")
	}
	out := signIn()
	r := httptest.NewRequest(http.MethodPost, "/sign-out", nil)
	r.Header.Set("Cookie", out)
	d.SignOut(httptest.NewRecorder(), r)
	if in(out) {
		t.Error("a session that was signed out doesn't end")
	}
	removed := signIn()
	if err := d.Remove(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	if in(removed) {
		t.Error("a session outlives its token")
	}
	memory := control(t, Config{})
	for range 2 * maxSessions {
		memory.begin(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), Caller{Role: fleetscore.RoleViewer, Name: Local})
	}
	if n := len(memory.sessions.open); n != maxSessions {
		t.Errorf("%d sessions are kept", n)
	}
}

// TestLinks: a link signs in once, in time, and with the rights of its maker.
func TestLinks(t *testing.T) {
	t.Parallel()
	d, m, c, l := world(t, Config{})
	anna := create(t, d, fleetscore.RoleViewer, "anna", time.Time{})
	caller, _ := d.byToken(anna)
	redeem := func(code string) (string, *Refusal) {
		w := httptest.NewRecorder()
		why := d.Redeem(w, httptest.NewRequest(http.MethodGet, "/", nil), code)
		cookie, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
		return cookie, why
	}
	link := func() string {
		t.Helper()
		code, _, err := d.Link(t.Context(), caller)
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	code := link()
	cookie, why := redeem(code)
	if why != nil {
		t.Fatal(why)
	}
	if w := ask(m, routes[fleetscore.RoleViewer], "Cookie", cookie); w.Code != http.StatusOK || w.Header().Get("Caller") != "anna" {
		t.Errorf("signed in: %d as %q", w.Code, w.Header().Get("Caller"))
	}
	if w := ask(m, routes[fleetscore.RoleAdministrator], "Cookie", cookie, "Sec-Fetch-Site", "same-origin"); w.Code != http.StatusForbidden {
		t.Errorf("a viewer's link administers: %d", w.Code)
	}
	if _, why := redeem(code); why == nil {
		t.Error("a link works twice")
	}
	late := link()
	c.add(codeLife)
	if _, why := redeem(late); why == nil {
		t.Error("a link works late")
	}
	gone := link()
	if err := d.Remove(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	if _, why := redeem(gone); why == nil {
		t.Error("a link outlives the token of who made it")
	}
	for range maxCodes + 20 {
		link()
	}
	if list, err := l.Sessions(t.Context()); len(list) != maxCodes+1 || len(d.sessions.open) != maxCodes+1 { // one session is signed in
		t.Errorf("%d links and sessions are kept, and %d are known, %v", len(list), len(d.sessions.open), err)
	}
}

// TestGuessing: wrong tokens need little work and get 429; memory is bounded; right
// tokens are accepted; after a while the address is answered as before.
func TestGuessing(t *testing.T) {
	t.Parallel()
	d, m, c, _ := world(t, Config{Local: "local"})
	guess := func() int { return ask(m, routes[fleetscore.RoleViewer], "Authorization", "Bearer guess").Code }
	for i := range maxGuesses {
		if code := guess(); code != http.StatusUnauthorized {
			t.Fatalf("guess %d: %d", i, code)
		}
	}
	w := ask(m, routes[fleetscore.RoleViewer], "Authorization", "Bearer guess")
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || w.Header().Get("Connection") != "close" {
		t.Errorf("too many guesses: %d, %v", w.Code, w.Header())
	}
	if code := ask(m, routes[fleetscore.RoleViewer], "Authorization", "Bearer local").Code; code != http.StatusOK {
		t.Errorf("a right token after wrong ones: %d", code)
	}
	c.add(guessWindow)
	if code := guess(); code != http.StatusUnauthorized {
		t.Errorf("a minute later: %d", code)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for i := range 10 * maxAddresses {
		r.RemoteAddr = "10." + string('0'+rune(i%10)) + "." + strconv.Itoa(i/10%256) + "." + strconv.Itoa(i/2560) + ":1"
		d.wrong(r, "")
	}
	if n := len(d.guesses.from); n > maxAddresses {
		t.Errorf("%d addresses are kept", n)
	}
	r.RemoteAddr = "[2001:db8:1:2:3::4]:5"
	if got := addressOf(r).String(); got != "2001:db8:1:2::/64" {
		t.Errorf("an address of IPv6 counts as %s", got)
	}
}
