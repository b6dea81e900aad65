package access

import (
	"net/http"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
)

// How long sessions and links live, and how many there may be at once.
const (
	codeLife     = 15 * time.Minute   // of a sign-in link: it works once, within this time
	sessionIdle  = 12 * time.Hour     // a session that isn't used for this long ends
	sessionLife  = 7 * 24 * time.Hour // a session ends after this, however much it is used
	maxSessions  = 1000               // if there are more, the session that is idle for the longest time ends
	maxCodes     = 100                // the same for links
	secretLength = 43                 // of Secret
)

// sessions are the browsers that are signed in, and the links that sign them in.
// They live in memory: a restart ends them.
type sessions struct {
	mu    sync.Mutex // guards what follows
	open  map[sum]*session
	codes map[sum]*session // the session that a link's code starts
}

// session is a browser that is signed in, or that a link can sign in.
type session struct {
	caller Caller
	begun  time.Time
	seen   time.Time
}

// put adds an entry to a bounded map. If the map is full, the entry that was seen the
// longest ago is removed.
func put(m map[sum]*session, most int, key sum, s *session) {
	if len(m) >= most {
		var oldest sum
		var at time.Time
		for k, x := range m {
			if at.IsZero() || x.seen.Before(at) {
				oldest, at = k, x.seen
			}
		}
		delete(m, oldest)
	}
	m[key] = s
}

// Link makes the code of a link that signs a browser in as the caller: it works
// once and for a short time.
func (d *Control) Link(c Caller) (code string, expires time.Time) {
	code, now := Secret(), d.now()
	s := &d.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.codes == nil {
		s.codes = map[sum]*session{}
	}
	for k, x := range s.codes {
		if now.Sub(x.begun) >= codeLife {
			delete(s.codes, k)
		}
	}
	put(s.codes, maxCodes, sumOf(code), &session{c, now, now})
	return code, now.Add(codeLife).UTC()
}

// LocalLink makes the code of a link that signs in the browser of the user who runs
// the server.
func (d *Control) LocalLink() string {
	code, _ := d.Link(Caller{Role: fleetscore.RoleAdministrator, Name: Local})
	return code
}

// Redeem signs a browser in by a link's code. A code that doesn't work is a
// Refusal, unless the browser is signed in already.
func (d *Control) Redeem(w http.ResponseWriter, r *http.Request, code string) *Refusal {
	key, now := sumOf(code), d.now()
	d.sessions.mu.Lock()
	s := d.sessions.codes[key]
	delete(d.sessions.codes, key)
	d.sessions.mu.Unlock()
	if s != nil && now.Sub(s.begun) < codeLife && d.valid(s.caller) {
		d.begin(w, s.caller)
		return nil
	}
	if cookie, err := r.Cookie(d.cfg.Cookie); err == nil {
		if _, ok := d.bySession(cookie.Value); ok {
			return nil // the link was followed twice
		}
	}
	refusal := d.wrong(r, "this link was used before or is too old")
	refusal.Op, refusal.Subject = "sign in", ""
	if refusal.Status == http.StatusUnauthorized {
		refusal.Hint = "fleetscore portal prints a new one; or enter a token below"
	}
	return refusal
}

// SignIn signs a browser in by a token's text. Tokens of devices and nodes are not
// for browsers.
func (d *Control) SignIn(w http.ResponseWriter, r *http.Request, text string) *Refusal {
	c, ok := d.byToken(text)
	switch {
	case !ok:
		refusal := d.wrong(r, "the token is wrong, was removed or has expired")
		refusal.Op, refusal.Subject = "sign in", ""
		if refusal.Status == http.StatusUnauthorized {
			refusal.Hint = "an administrator creates one with: fleetscore token create viewer NAME"
		}
		return refusal
	case !c.Role.May(fleetscore.RoleViewer):
		return &Refusal{Status: http.StatusForbidden, Op: "sign in", Message: "a token of the role " + string(c.Role) + " can't read pages",
			Hint: "use a token of the role viewer, operator or administrator"}
	}
	d.begin(w, c)
	return nil
}

// begin opens a session and gives the browser its cookie.
func (d *Control) begin(w http.ResponseWriter, c Caller) {
	id, now := Secret(), d.now()
	s := &d.sessions
	s.mu.Lock()
	if s.open == nil {
		s.open = map[sum]*session{}
	}
	put(s.open, maxSessions, sumOf(id), &session{c, now, now})
	s.mu.Unlock()
	http.SetCookie(w, d.cookie(id, int(sessionLife/time.Second)))
}

func (d *Control) cookie(value string, age int) *http.Cookie {
	return &http.Cookie{Name: d.cfg.Cookie, Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: d.cfg.Secure, SameSite: http.SameSiteStrictMode}
}

// SignOut ends the session of a browser.
func (d *Control) SignOut(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(d.cfg.Cookie); err == nil {
		d.sessions.mu.Lock()
		delete(d.sessions.open, sumOf(cookie.Value))
		d.sessions.mu.Unlock()
	}
	http.SetCookie(w, d.cookie("", -1))
}

// bySession finds the caller of a session that hasn't ended.
func (d *Control) bySession(id string) (Caller, bool) {
	if len(id) != secretLength {
		return Caller{}, false
	}
	key, now := sumOf(id), d.now()
	d.sessions.mu.Lock()
	s := d.sessions.open[key]
	ok := s != nil && now.Sub(s.seen) < sessionIdle && now.Sub(s.begun) < sessionLife && d.valid(s.caller)
	switch {
	case ok:
		s.seen = now
	case s != nil:
		delete(d.sessions.open, key)
	}
	d.sessions.mu.Unlock()
	if !ok {
		return Caller{}, false
	}
	if s.caller.token != nil {
		s.caller.token.use(now)
	}
	return s.caller, true
}
