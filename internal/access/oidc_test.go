package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"github.com/fleetscore/fleetscore"
)

// issuer is an OpenID provider that lies as a test asks it to.
type issuer struct {
	*httptest.Server
	t   *testing.T
	key *ecdsa.PrivateKey

	mu     sync.Mutex                // guards what follows
	codes  map[string]url.Values     // codes that weren't used, and the requests they belong to
	claims func(good map[string]any) // changes what an ID token says
	info   map[string]any            // what the provider says when it is asked for more
	signer *ecdsa.PrivateKey         // signs the tokens; nil means key
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &issuer{t: t, key: key, codes: map[string]url.Values{}}
	keys := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "k", Algorithm: oidc.ES256}}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		p.answer(w, map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"userinfo_endpoint": p.URL + "/userinfo", "id_token_signing_alg_values_supported": []string{"ES256"}})
	})
	mux.Handle("GET /keys", keys)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /userinfo", func(w http.ResponseWriter, _ *http.Request) { p.answer(w, p.info) })
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	keys.SetIssuer(p.URL)
	return p
}

func (p *issuer) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		p.t.Error(err)
	}
}

// token redeems a code once, as RFC 6749 and 7636 say.
func (p *issuer) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		p.t.Error(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, ok := p.codes[r.Form.Get("code")]
	delete(p.codes, r.Form.Get("code"))
	sum := sha256.Sum256([]byte(r.Form.Get("code_verifier")))
	user, secret, _ := r.BasicAuth()
	if !ok || base64.RawURLEncoding.EncodeToString(sum[:]) != asked.Get("code_challenge") || asked.Get("code_challenge_method") != "S256" || user != "fleet" || secret != "hush" ||
		r.Form.Get("redirect_uri") != asked.Get("redirect_uri") {
		w.WriteHeader(http.StatusBadRequest)
		p.answer(w, map[string]string{"error": "invalid_grant"})
		return
	}
	claims := map[string]any{"iss": p.URL, "aud": "fleet", "sub": "u1", "nonce": asked.Get("nonce"), "exp": noon.Add(time.Hour).Unix(), "iat": noon.Unix(),
		"email": "Anna@Example.com", "email_verified": true, "groups": []string{"staff", "fleet-ops"}, "realm": map[string]any{"roles": []string{"chief"}}}
	if p.claims != nil {
		p.claims(claims)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		p.t.Error(err)
	}
	signer := p.key
	if p.signer != nil {
		signer = p.signer
	}
	p.answer(w, map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": oidctest.SignIDToken(signer, "k", oidc.ES256, string(text))})
}

// signIn is a person at the provider who says yes: it returns the query of the way back.
func (p *issuer) signIn(address string) url.Values {
	p.t.Helper()
	u, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(address, p.URL+"/auth?") {
		p.t.Fatalf("sent to %s, %v", address, err)
	}
	q := u.Query()
	code := Secret()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codes[code] = q
	return url.Values{"code": {code}, "state": {q.Get("state")}}
}

// person is a browser.
type person struct {
	t      *testing.T
	d      *Control
	cookie []*http.Cookie
}

// start goes to the provider and returns its address.
func (b *person) start() string {
	b.t.Helper()
	w := httptest.NewRecorder()
	address, why := b.d.Start(w, httptest.NewRequest(http.MethodGet, StartPath, nil), "/jobs/j1")
	if why != nil {
		b.t.Fatal(why.Message)
	}
	b.cookie = w.Result().Cookies()
	return address
}

// back comes back from the provider.
func (b *person) back(q url.Values) (next, session string, why *Refusal) {
	b.t.Helper()
	r := httptest.NewRequest(http.MethodGet, ReturnPath+"?"+q.Encode(), nil)
	for _, c := range b.cookie {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	next, why = b.d.Finish(w, r)
	for _, c := range w.Result().Cookies() {
		switch {
		case c.MaxAge < 0:
			b.cookie = nil
		case c.SameSite == http.SameSiteStrictMode && c.HttpOnly:
			session = c.Name + "=" + c.Value
		}
	}
	return next, session, why
}

func peopleOf(t *testing.T, p *issuer) (*Control, *Mux, *clock) {
	t.Helper()
	d, m, c, _ := world(t, Config{SignInSecret: func() (string, error) { return "hush", nil }})
	d.set(signInAt(p.URL))
	return d, m, c
}

func signInAt(address string) fleetscore.AccessConfig {
	return fleetscore.AccessConfig{SignIn: fleetscore.SignInConfig{Issuer: address, ClientID: "fleet", Claim: "email", Scopes: []string{"email"},
		Roles: []fleetscore.ClaimRole{{Value: "*@example.com", Role: fleetscore.RoleOperator}}}}
}

// TestSignInByProvider: a person who signed in at the provider has the role that the
// claim gives, until the session is idle, too old, signed out or the settings change. A
// page of another site can't use the session.
func TestSignInByProvider(t *testing.T) {
	t.Parallel()
	p := newIssuer(t)
	d, m, c := peopleOf(t, p)
	b := &person{t: t, d: d}
	in := func() string {
		t.Helper()
		next, session, why := b.back(p.signIn(b.start()))
		if why != nil || next != "/jobs/j1" || session == "" {
			t.Fatalf("signing in: %q, %q, %+v", next, session, why)
		}
		return session
	}
	read, change := routes[fleetscore.RoleViewer], routes[fleetscore.RoleOperator]
	get := func(pattern, session string, more ...string) int {
		return ask(m, pattern, append([]string{"Cookie", session}, more...)...).Code
	}
	session := in()
	if w := ask(m, read, "Cookie", session); w.Code != http.StatusOK || w.Header().Get("Caller") != "Anna@Example.com" {
		t.Errorf("signed in: %d as %q", w.Code, w.Header().Get("Caller"))
	}
	if got := get(change, session, "Sec-Fetch-Site", "same-origin"); got != http.StatusOK {
		t.Errorf("an operator's change: %d", got)
	}
	for _, site := range []string{"", "cross-site", "same-site"} {
		if got := get(change, session, "Sec-Fetch-Site", site); got != http.StatusForbidden {
			t.Errorf("a change by a page of %q: %d", site, got)
		}
	}
	if got := get(routes[fleetscore.RoleAdministrator], session, "Sec-Fetch-Site", "same-origin"); got != http.StatusForbidden {
		t.Errorf("an operator as administrator: %d", got)
	}
	c.add(sessionIdle)
	if get(read, session) != http.StatusUnauthorized {
		t.Error("a session without use doesn't end")
	}
	p.claims = func(m map[string]any) { m["exp"] = noon.AddDate(1, 0, 0).Unix() }
	session = in()
	for range 7 * 24 {
		c.add(time.Hour)
		get(read, session)
	}
	if get(read, session) != http.StatusUnauthorized {
		t.Error("a session has no greatest age")
	}
	session = in()
	other := signInAt(p.URL)
	other.SignIn.Roles[0].Role = fleetscore.RoleViewer
	if d.set(other); get(read, session) != http.StatusUnauthorized {
		t.Error("a session outlives the entry that gave its role")
	}
	session = in()
	r := httptest.NewRequest(http.MethodPost, "/sign-out", nil)
	r.Header.Set("Cookie", session)
	if why := d.SignOut(httptest.NewRecorder(), r); why != nil || get(read, session) != http.StatusUnauthorized {
		t.Errorf("signed out: %v", why)
	}
}

// TestWhoMaySignIn: which claims give which role, and what those are told who get none.
func TestWhoMaySignIn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		claim  string
		roles  []fleetscore.ClaimRole
		claims func(map[string]any)
		info   map[string]any
		want   fleetscore.Role
		says   string
	}{
		{"first entry", "groups", []fleetscore.ClaimRole{{Value: "fleet-*", Role: fleetscore.RoleAdministrator}, {Value: "staff", Role: fleetscore.RoleViewer}}, nil, nil, fleetscore.RoleAdministrator, ""},
		{"nested claim", "realm.roles", []fleetscore.ClaimRole{{Value: "chief", Role: fleetscore.RoleViewer}}, nil, nil, fleetscore.RoleViewer, ""},
		{"only when asked", "dept", []fleetscore.ClaimRole{{Value: "plant", Role: fleetscore.RoleViewer}}, nil, map[string]any{"sub": "u1", "dept": "plant"}, fleetscore.RoleViewer, ""},
		{"about somebody else", "dept", []fleetscore.ClaimRole{{Value: "plant", Role: fleetscore.RoleViewer}}, nil, map[string]any{"sub": "u2", "dept": "plant"}, "", "the provider doesn't say the dept of"},
		{"no entry", "groups", []fleetscore.ClaimRole{{Value: "chiefs", Role: fleetscore.RoleViewer}}, nil, nil, "", "Anna@Example.com has no role here"},
		{"claim missing", "email", []fleetscore.ClaimRole{{Value: "*", Role: fleetscore.RoleViewer}}, func(m map[string]any) { delete(m, "email") }, map[string]any{"sub": "u1"}, "", "doesn't say the email of u1@127.0.0.1"},
		{"not verified", "email", []fleetscore.ClaimRole{{Value: "*", Role: fleetscore.RoleViewer}}, func(m map[string]any) { m["email_verified"] = false }, nil, "", "hasn't verified that the address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newIssuer(t)
			d, m, _ := peopleOf(t, p)
			s := signInAt(p.URL)
			s.SignIn.Claim, s.SignIn.Roles = tt.claim, tt.roles
			d.set(s)
			p.claims, p.info = tt.claims, tt.info
			b := &person{t: t, d: d}
			_, session, why := b.back(p.signIn(b.start()))
			if tt.want == "" {
				if why == nil || why.Status != http.StatusForbidden || !strings.Contains(why.Message, tt.says) || session != "" {
					t.Errorf("%+v, want %q", why, tt.says)
				}
				return
			}
			if why != nil {
				t.Fatal(why)
			}
			got := Caller{}
			m.HandleFunc("GET /api/v1/whoami", func(_ http.ResponseWriter, r *http.Request) { got = CallerOf(r.Context()) })
			if ask(m, "GET /api/v1/whoami", "Cookie", session); got.Role != tt.want {
				t.Errorf("role %q, want %q", got.Role, tt.want)
			}
		})
	}
}

// TestHostileSignIn: answers that weren't made for this browser, this attempt, this
// server or this time sign nobody in.
func TestHostileSignIn(t *testing.T) {
	t.Parallel()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set := func(key string, v any) func(map[string]any) { return func(m map[string]any) { m[key] = v } }
	for _, tt := range []struct {
		name   string
		claims func(map[string]any)
		signer *ecdsa.PrivateKey
		change func(b *person, q url.Values)
		says   string
	}{
		{name: "another state", change: func(_ *person, q url.Values) { q.Set("state", Secret()) }, says: "another attempt"},
		{name: "no state", change: func(_ *person, q url.Values) { q.Del("state") }, says: "another attempt"},
		{name: "another browser", change: func(b *person, _ url.Values) { b.cookie = nil }, says: "this browser didn't begin"},
		{name: "a cookie that isn't ours", change: func(b *person, _ url.Values) { b.cookie[0].Value = "e30" }, says: "this browser didn't begin"},
		{name: "the attempt of another browser", change: func(b *person, _ url.Values) { b.start() }, says: "another attempt"},
		{name: "another nonce", claims: set("nonce", Secret()), says: "its nonce is another one"},
		{name: "no nonce", claims: set("nonce", ""), says: "its nonce is another one"},
		{name: "another audience", claims: set("aud", "other"), says: "expected audience"},
		{name: "another party", claims: set("azp", "other"), says: "made for another program"},
		{name: "several audiences", claims: set("aud", []string{"other", "fleet"}), says: "made for another program"},
		{name: "expired", claims: set("exp", noon.Add(-time.Hour).Unix()), says: "expired"},
		{name: "another issuer", claims: set("iss", "https://example.com"), says: "different provider"},
		{name: "another key", signer: stranger, says: "failed to verify"},
		{name: "a code of nobody", change: func(_ *person, q url.Values) { q.Set("code", "x") }, says: "invalid_grant"},
		{name: "no code", change: func(_ *person, q url.Values) { q.Del("code") }, says: "doesn't accept the answer"},
		{name: "another provider's answer", change: func(_ *person, q url.Values) { q.Set("iss", "https://example.com") }, says: "another provider"},
		{name: "the person said no", change: func(_ *person, q url.Values) { q.Set("error", "access_denied") }, says: "access_denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newIssuer(t)
			p.claims, p.signer = tt.claims, tt.signer
			d, _, _ := peopleOf(t, p)
			b := &person{t: t, d: d}
			q := p.signIn(b.start())
			if tt.change != nil {
				tt.change(b, q)
			}
			_, session, why := b.back(q)
			if why == nil || session != "" || !strings.Contains(why.Message, tt.says) {
				t.Fatalf("%+v with session %q, want %q", why, session, tt.says)
			}
		})
	}
}

// TestRepeatedAnswer: an answer of the provider works once, even for the same browser.
func TestRepeatedAnswer(t *testing.T) {
	t.Parallel()
	p := newIssuer(t)
	d, _, _ := peopleOf(t, p)
	b := &person{t: t, d: d}
	q := p.signIn(b.start())
	kept := b.cookie
	if _, _, why := b.back(q); why != nil {
		t.Fatal(why)
	}
	if _, session, why := b.back(q); why == nil || session != "" {
		t.Error("the same answer signs in twice")
	}
	b.cookie = kept
	if _, session, why := b.back(q); why == nil || session != "" || !strings.Contains(why.Message, "invalid_grant") {
		t.Errorf("the same answer with the same cookie: %+v", why)
	}
}

// TestProviderAway: while the provider is away the page says so, and tokens work; when it
// is back, people sign in.
func TestProviderAway(t *testing.T) {
	t.Parallel()
	p := newIssuer(t)
	d, _, c := peopleOf(t, p)
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	d.set(signInAt(away.URL))
	_, why := d.Start(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, StartPath, nil), "/")
	if why == nil || why.Status != http.StatusServiceUnavailable || !strings.Contains(why.Message, away.URL) || !strings.Contains(why.Hint, "token") {
		t.Errorf("the provider is away: %+v", why)
	}
	if signedIn(t, d, create(t, d, fleetscore.RoleViewer, "anna", time.Time{})) == "" {
		t.Error("a token doesn't sign in meanwhile")
	}
	c.add(retryAway)
	d.set(signInAt(p.URL))
	b := &person{t: t, d: d}
	if _, _, why := b.back(p.signIn(b.start())); why != nil {
		t.Errorf("the provider is back: %+v", why)
	}
	d.set(fleetscore.AccessConfig{})
	if _, why := d.Start(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, StartPath, nil), "/"); why == nil || why.Status != http.StatusNotFound {
		t.Errorf("no provider: %+v", why)
	}
}
