package access

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/fleetscore/fleetscore"
)

// The pages by which a browser goes to the OpenID provider and comes back.
const (
	StartPath  = "/sign-in/provider"
	ReturnPath = "/sign-in/callback"
)

const (
	flowLife      = 10 * time.Minute // a person has this long to sign in at the provider
	providerLimit = 10 * time.Second // for each answer of the provider
	providerBytes = 1 << 20          // the largest answer
	providerCalls = 16               // requests that wait for the provider at once
	rediscover    = time.Hour        // the provider's addresses are asked for again after this
	retryAway     = 2 * time.Second  // a provider that couldn't be reached isn't asked again before
)

// provider is the OpenID provider, as it described itself last.
type provider struct {
	client *http.Client
	calls  chan struct{} // bounds the calls that unknown clients cause

	mu     sync.Mutex // guards what follows; not held during a call
	issuer string
	found  *oidc.Provider
	err    error
	asked  time.Time
}

func newProvider() *provider {
	return &provider{calls: make(chan struct{}, providerCalls), client: &http.Client{Timeout: providerLimit, Transport: shortAnswers{http.DefaultTransport}}}
}

// shortAnswers bounds the size of answers.
type shortAnswers struct{ next http.RoundTripper }

func (s shortAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := s.next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, providerBytes), resp.Body}
	}
	return resp, err
}

// flow is what a browser must bring back from the provider. It lies in a cookie of that
// browser, so that no answer to another browser is accepted, and no server has to
// remember it.
type flow struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // of PKCE
	Next     string `json:"p"` // the page to open after signing in
}

// Provider names the OpenID provider for people; empty means that there is none.
func (d *Control) Provider() string {
	u, err := url.Parse(d.settings.Load().SignIn.Issuer)
	if err != nil {
		return ""
	}
	return u.Host
}

const signInOp = "sign in"

func signInRefusal(status int, hint, format string, args ...any) *Refusal {
	return &Refusal{Status: status, Op: signInOp, Message: fmt.Sprintf(format, args...), Hint: hint}
}

const againHint = "sign in again"

// discover returns the provider that the settings name.
func (d *Control) discover(ctx context.Context, issuer string) (*oidc.Provider, *Refusal) {
	p, now := d.provider, d.now()
	p.mu.Lock()
	found, err, fresh := p.found, p.err, p.issuer == issuer && now.Sub(p.asked) < rediscover
	if p.issuer != issuer {
		found, err = nil, nil
	}
	if err != nil && now.Sub(p.asked) >= retryAway {
		fresh = false
	}
	p.mu.Unlock()
	if !fresh {
		// The context of the call is kept for later reads of the provider's keys.
		got, e := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.client), issuer)
		if e == nil {
			found = got
		}
		err = e
		p.mu.Lock()
		p.issuer, p.found, p.err, p.asked = issuer, found, err, now
		p.mu.Unlock()
	}
	if found == nil { // one that answered before is used while it is away
		d.log.Warn("the OpenID provider can't be asked", "issuer", issuer, "error", err)
		return nil, signInRefusal(http.StatusServiceUnavailable, "try again in a moment; a token works meanwhile", "the provider %s gives no good answer: %v", issuer, shortError(err))
	}
	return found, nil
}

// shortError is an error without the text of a whole page.
func shortError(err error) string {
	text := []rune(strings.Join(strings.Fields(err.Error()), " "))
	if len(text) > 200 {
		text = append(text[:200], '…')
	}
	return string(text)
}

// enter bounds how many requests wait for the provider.
func (d *Control) enter() (leave func(), why *Refusal) {
	select {
	case d.provider.calls <- struct{}{}:
		return func() { <-d.provider.calls }, nil
	default:
		return nil, signInRefusal(http.StatusServiceUnavailable, "try again in a moment", "too many browsers sign in at once")
	}
}

// oauth is how the provider is spoken to. The secret is read each time, so that it can be
// replaced while the server runs.
func (d *Control) oauth(r *http.Request, p *oidc.Provider, s fleetscore.SignInConfig) (*oauth2.Config, *Refusal) {
	c := &oauth2.Config{ClientID: s.ClientID, Endpoint: p.Endpoint(), Scopes: append([]string{oidc.ScopeOpenID}, s.Scopes...), RedirectURL: d.base(r) + ReturnPath}
	if d.cfg.SignInSecret == nil {
		return c, nil
	}
	var err error
	if c.ClientSecret, err = d.cfg.SignInSecret(); err != nil {
		d.log.Error("the secret for the OpenID provider can't be read", "error", err)
		return nil, signInRefusal(http.StatusServiceUnavailable, "the server's log says more", "the server can't read its secret for the provider")
	}
	return c, nil
}

// base is the server's address as browsers see it.
func (d *Control) base(r *http.Request) string {
	if u := d.settings.Load().URL; u != "" {
		return strings.TrimSuffix(u, "/")
	}
	scheme := "http://"
	if d.cfg.Secure {
		scheme = "https://"
	}
	return scheme + r.Host
}

// flowCookie is for the way to the provider and back. It is sent with the request that
// the provider's page makes, as the cookie of a session is not.
func (d *Control) flowCookie(value string, age int) *http.Cookie {
	return &http.Cookie{Name: d.cfg.Cookie + "-flow", Value: value, Path: ReturnPath, MaxAge: age, HttpOnly: true, Secure: d.cfg.Secure, SameSite: http.SameSiteLaxMode}
}

// Start returns the provider's address at which a person signs in, and gives the browser
// what it must bring back. next is the page to open afterwards.
func (d *Control) Start(w http.ResponseWriter, r *http.Request, next string) (string, *Refusal) {
	s := d.settings.Load().SignIn
	if s.Issuer == "" {
		return "", signInRefusal(http.StatusNotFound, "sign in with a token", "this server has no OpenID provider")
	}
	leave, why := d.enter()
	if why != nil {
		return "", why
	}
	defer leave()
	p, why := d.discover(r.Context(), s.Issuer)
	if why != nil {
		return "", why
	}
	c, why := d.oauth(r, p, s)
	if why != nil {
		return "", why
	}
	if len(next) > 1000 { // a cookie has room for about 4000 bytes
		next = "/"
	}
	f := flow{State: Secret(), Nonce: Secret(), Verifier: oauth2.GenerateVerifier(), Next: next}
	text, err := json.Marshal(f)
	if err != nil {
		return "", away(signInOp, err)
	}
	http.SetCookie(w, d.flowCookie(base64.RawURLEncoding.EncodeToString(text), int(flowLife/time.Second)))
	return c.AuthCodeURL(f.State, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), nil
}

// flowOf reads what the browser brought back.
func (d *Control) flowOf(r *http.Request) (f flow, ok bool) {
	cookie, err := r.Cookie(d.cfg.Cookie + "-flow")
	if err != nil {
		return f, false
	}
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	return f, err == nil && json.Unmarshal(text, &f) == nil && len(f.State) == secretLength && len(f.Nonce) == secretLength && f.Verifier != ""
}

// Finish signs a browser in that comes back from the provider, and returns the page to
// open.
func (d *Control) Finish(w http.ResponseWriter, r *http.Request) (next string, why *Refusal) {
	s, q := d.settings.Load(), r.URL.Query()
	f, ok := d.flowOf(r)
	http.SetCookie(w, d.flowCookie("", -1)) // it works once
	switch {
	case s.SignIn.Issuer == "":
		return "", signInRefusal(http.StatusNotFound, "sign in with a token", "this server has no OpenID provider")
	case !ok:
		return "", signInRefusal(http.StatusBadRequest, againHint+"; the browser must accept cookies", "this browser didn't begin to sign in, or too long ago")
	case subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(f.State)) != 1:
		return "", signInRefusal(http.StatusBadRequest, againHint, "the answer belongs to another attempt to sign in")
	case q.Has("iss") && q.Get("iss") != s.SignIn.Issuer:
		return "", signInRefusal(http.StatusBadRequest, againHint, "the answer came from another provider")
	case q.Get("error") != "":
		return "", signInRefusal(http.StatusUnauthorized, againHint, "the provider refused: %s", shortError(errors.New(q.Get("error")+" "+q.Get("error_description"))))
	}
	leave, why := d.enter()
	if why != nil {
		return "", why
	}
	defer leave()
	c, why := d.person(r, s, q.Get("code"), f)
	if why != nil {
		return "", why
	}
	d.log.Info("signed in", "person", c.Name, "role", c.Role)
	return f.Next, d.begin(w, r, c)
}

// person exchanges the provider's code for what it says about a person.
func (d *Control) person(r *http.Request, s *settings, code string, f flow) (Caller, *Refusal) {
	p, why := d.discover(r.Context(), s.SignIn.Issuer)
	if why != nil {
		return Caller{}, why
	}
	c, why := d.oauth(r, p, s.SignIn)
	if why != nil {
		return Caller{}, why
	}
	ctx := oidc.ClientContext(r.Context(), d.provider.client)
	token, err := c.Exchange(ctx, code, oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return Caller{}, d.refused(r, "the provider doesn't accept the answer", err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := p.Verifier(&oidc.Config{ClientID: s.SignIn.ClientID, Now: d.now}).Verify(ctx, raw)
	switch {
	case err != nil:
		return Caller{}, d.refused(r, "what the provider says about you isn't valid", err)
	case subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.Nonce)) != 1:
		return Caller{}, d.refused(r, "what the provider says belongs to another attempt to sign in", errors.New("its nonce is another one"))
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return Caller{}, d.refused(r, "what the provider says about you can't be read", err)
	}
	if party, _ := claims["azp"].(string); party != s.SignIn.ClientID && (party != "" || len(id.Audience) > 1) {
		return Caller{}, d.refused(r, "what the provider says was made for another program", fmt.Errorf("azp is %q", party))
	}
	if valuesOf(claims, s.SignIn.Claim) == nil { // many providers say more when they are asked
		if info, err := p.UserInfo(ctx, oauth2.StaticTokenSource(token)); err != nil {
			d.log.Warn("the OpenID provider doesn't say more about a person", "error", err)
		} else if info.Subject == id.Subject {
			more := map[string]any{}
			if err := info.Claims(&more); err == nil {
				for k, v := range more {
					if _, known := claims[k]; !known {
						claims[k] = v
					}
				}
			}
		}
	}
	return personOf(s, id.Subject, claims)
}

// refused is the refusal of an answer that the provider or its keys don't confirm. Such
// answers are counted as guesses.
func (d *Control) refused(r *http.Request, message string, err error) *Refusal {
	d.log.Warn("a person couldn't sign in", "problem", message, "error", err)
	why := d.wrong(r, message+": "+shortError(err))
	if why.Op, why.Subject = signInOp, ""; why.Status == http.StatusUnauthorized {
		why.Hint = againHint
	}
	return why
}

// personOf is the caller that the claims describe.
func personOf(s *settings, subject string, claims map[string]any) (Caller, *Refusal) {
	unverified := claims["email_verified"] == false || claims["email_verified"] == "false"
	name := nameOf(s, subject, claims, unverified)
	values := valuesOf(claims, s.SignIn.Claim)
	mail := s.SignIn.Claim == "email"
	const ask = "ask an administrator of this server"
	switch {
	case len(values) == 0:
		return Caller{}, signInRefusal(http.StatusForbidden, "an administrator names another claim, or asks for it, with access.sign_in.claim and scopes in fleet.yaml",
			"the provider doesn't say the %s of %s, by which roles are given", s.SignIn.Claim, name)
	case mail && unverified:
		return Caller{}, signInRefusal(http.StatusForbidden, "verify the address at the provider", "the provider hasn't verified that the address %s is yours", values[0])
	}
	for _, entry := range s.SignIn.Roles {
		for _, v := range values {
			pattern := entry.Value
			if mail {
				pattern, v = strings.ToLower(pattern), strings.ToLower(v)
			}
			if ok, err := path.Match(pattern, v); ok && err == nil { // config checked the pattern
				return Caller{Role: entry.Role, Name: name, via: viaPerson, under: s.signIn}, nil
			}
		}
	}
	return Caller{}, signInRefusal(http.StatusForbidden, ask, "%s has no role here: no entry of access.sign_in.roles matches the %s that the provider says", name, s.SignIn.Claim)
}

// nameOf is a person's name. It contains an @, as no token's name can.
func nameOf(s *settings, subject string, claims map[string]any, unverified bool) string {
	name, _ := claims["email"].(string)
	if name == "" || unverified || !strings.Contains(name, "@") {
		if name, _ = claims["preferred_username"].(string); name == "" {
			name = subject
		}
		if u, err := url.Parse(s.SignIn.Issuer); err == nil && !strings.Contains(name, "@") {
			name += "@" + u.Hostname()
		}
	}
	printable := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, name)
	if runes := []rune(printable); len(runes) > 100 {
		return string(runes[:100])
	}
	return printable
}

// valuesOf are the texts of a claim, which may lie in another one: realm_access.roles.
func valuesOf(claims map[string]any, name string) []string {
	v, ok := claims[name]
	if first, rest, nested := strings.Cut(name, "."); !ok && nested {
		inner, _ := claims[first].(map[string]any)
		return valuesOf(inner, rest)
	}
	var out []string
	switch v := v.(type) {
	case string:
		out = append(out, v)
	case []any:
		for _, e := range v {
			if text, ok := e.(string); ok {
				out = append(out, text)
			}
		}
	}
	return out
}
