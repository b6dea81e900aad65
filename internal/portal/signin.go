package portal

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/fleetscore/fleetscore/internal/access"
)

// signIn is the content of the page for signing in.
type signIn struct {
	Problem string
	Hint    string
	Next    string // the page to open after signing in

	Provider string // where people sign in; empty means that there is none
	Start    string // the address of the page that leads there
}

func (p *Portal) signInPage(w http.ResponseWriter, r *http.Request, status int, s signIn) {
	if s.Provider = p.deps.Access.Provider(); s.Provider != "" {
		s.Start = access.StartPath + "?" + url.Values{"next": {s.Next}}.Encode()
	}
	p.render(w, r, "signin", status, s)
}

// startSignIn sends a browser to the OpenID provider.
func (p *Portal) startSignIn(w http.ResponseWriter, r *http.Request) {
	next := ownPath(r.URL.Query().Get("next"))
	address, why := p.deps.Access.Start(w, r, next)
	if why != nil {
		p.signInPage(w, r, why.Status, signIn{Problem: why.Message, Hint: why.Hint, Next: next})
		return
	}
	http.Redirect(w, r, address, http.StatusSeeOther)
}

// finishSignIn signs a browser in that comes back from the provider. The next page is
// opened by this page, not by a redirect: browsers send the cookie of a session only with
// requests that pages of this server make.
func (p *Portal) finishSignIn(w http.ResponseWriter, r *http.Request) {
	next, why := p.deps.Access.Finish(w, r)
	if why != nil {
		p.signInPage(w, r, why.Status, signIn{Problem: why.Message, Hint: why.Hint, Next: "/"})
		return
	}
	p.render(w, r, "signedin", http.StatusOK, signedIn{ownPath(next)})
}

// signedIn is the content of the page after signing in at the provider.
type signedIn struct{ Next string }

func (s signedIn) goOn() string { return "0; url=" + s.Next }

// deny answers a request for a page that its sender may not see: a browser that isn't
// signed in gets the page for signing in.
func (p *Portal) deny(w http.ResponseWriter, r *http.Request, why *access.Refusal) {
	switch {
	case why.Status == http.StatusUnauthorized && p.redeem(w, r):
	case why.Status == http.StatusUnauthorized:
		next := "/"
		if r.Method == http.MethodGet {
			next = r.URL.RequestURI()
		}
		s := signIn{Next: next}
		if r.Header.Get("Authorization") != "" || why.Certificate() {
			s.Problem, s.Hint = why.Message, why.Hint
		}
		p.signInPage(w, r, why.Status, s)
	default:
		http.Error(w, why.Op+": "+why.Message+" ("+why.Hint+")", why.Status)
	}
}

// followLink accepts a sign-in link from a browser that is already signed in.
func (p *Portal) followLink(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !p.redeem(w, r) {
			next(w, r)
		}
	}
}

// redeem signs a browser in by the code in the overview's address, and redirects it
// to the address without the code. It reports whether it answered.
func (p *Portal) redeem(w http.ResponseWriter, r *http.Request) bool {
	code := r.URL.Query().Get("token")
	if code == "" || r.URL.Path != "/" || r.Method != http.MethodGet {
		return false
	}
	if why := p.deps.Access.Redeem(w, r, code); why != nil {
		p.signInPage(w, r, why.Status, signIn{Problem: why.Message, Hint: why.Hint, Next: "/"})
		return true
	}
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return true
}

// signIn signs a browser in by the token in its form.
func (p *Portal) signIn(w http.ResponseWriter, r *http.Request) {
	next := ownPath(r.PostFormValue("next"))
	if why := p.deps.Access.SignIn(w, r, strings.TrimSpace(r.PostFormValue("token"))); why != nil {
		p.signInPage(w, r, why.Status, signIn{Problem: why.Message, Hint: why.Hint, Next: next})
		return
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
}

func (p *Portal) signOut(w http.ResponseWriter, r *http.Request) {
	if why := p.deps.Access.SignOut(w, r); why != nil {
		p.signInPage(w, r, why.Status, signIn{Problem: "This browser forgot its session, but the server couldn't end it: " + why.Message, Next: "/"})
		return
	}
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
}

// ownPath returns the path if it is a page of this portal, otherwise "/", so that no
// browser is redirected to another site.
func ownPath(path string) string {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return "/"
	}
	return path
}
