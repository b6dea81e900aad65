package access

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
)

// How long sessions and links live, and how many there may be at once.
const (
	codeLife     = 15 * time.Minute   // of a sign-in link: it works once, within this time
	sessionIdle  = 12 * time.Hour     // a session that isn't used for this long ends, unless access.sessions says otherwise
	sessionLife  = 7 * 24 * time.Hour // a session ends after this, however much it is used, unless access.sessions says otherwise
	maxSessions  = 1000               // if there are more, the session that is idle for the longest time ends
	maxCodes     = 100                // the same for links
	secretLength = 43                 // of Secret
)

// forever is later than the end of every session.
var forever = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// sessions are the browsers that are signed in, and the links that sign them in, as the
// ledger has them; without a ledger they are kept here alone.
type sessions struct {
	mu   sync.Mutex // guards open
	open map[sum]*session

	looking lifecycle.Turns[struct{}]
	reads   atomic.Int64 // of the ledger's sessions that unknown cookies caused
}

// session is a browser that is signed in, or a link that can sign one in.
type session struct {
	link   bool
	caller Caller
	seen   time.Time
	ends   time.Time
	noted  time.Time // the last use that the ledger knows
}

// holder is how the ledger keeps a session's caller.
type holder struct {
	Role   fleetscore.Role `json:"role"`
	Name   string          `json:"name"`
	Via    via             `json:"via,omitempty"`
	Under  string          `json:"under,omitempty"`  // the settings that gave the role
	Ends   time.Time       `json:"ends,omitzero"`    // of a certificate
	Token  string          `json:"token,omitempty"`  // its identifier
	Secret string          `json:"secret,omitempty"` // SHA-256 of the token's text by which the browser was signed in
}

func (c Caller) holder() string {
	h := holder{Role: c.Role, Name: c.Name, Via: c.via, Under: c.under, Ends: c.ends, Token: c.token}
	if c.via == viaToken {
		h.Secret = hex.EncodeToString(c.secret[:])
	}
	b, _ := json.Marshal(h) // texts alone can always be written
	return string(b)
}

func callerOf(text string) (Caller, error) {
	var h holder
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		return Caller{}, fleetscore.Wrap("read session", "", err)
	}
	c := Caller{Role: h.Role, Name: h.Name, via: h.Via, under: h.Under, ends: h.Ends, token: h.Token}
	_, err := hex.Decode(c.secret[:], []byte(h.Secret[:min(len(h.Secret), 2*len(c.secret))]))
	return c, err
}

// put adds a session or link to those that are known. If there are too many of its kind,
// the one that was seen the longest ago is removed.
func (s *sessions) put(key sum, x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[sum]*session{}
	}
	n, oldest, at := 0, sum{}, time.Time{}
	for k, o := range s.open {
		if o.link != x.link {
			continue
		}
		if n++; at.IsZero() || o.seen.Before(at) {
			oldest, at = k, o.seen
		}
	}
	if n >= most(x.link) {
		delete(s.open, oldest)
	}
	s.open[key] = x
}

// most is how many sessions or links there may be.
func most(link bool) int {
	if link {
		return maxCodes
	}
	return maxSessions
}

// add makes a session or a link for a caller and returns its secret.
func (d *Control) add(ctx context.Context, c Caller, link bool, life time.Duration) (secret string, err error) {
	done, err := d.changes.Take(ctx, all)
	if err != nil {
		return "", err
	}
	defer done()
	secret, now := Secret(), d.now().UTC()
	x := &session{link: link, caller: c, seen: now, ends: now.Add(life), noted: now}
	key := sumOf(secret)
	if d.store != nil {
		if err := d.store.PutSession(ctx, ledger.Session{ID: key, Link: link, Who: c.holder(), Begun: now, Seen: now, Ends: x.ends}, most(link)); err != nil {
			return "", err
		}
	}
	d.sessions.put(key, x)
	return secret, nil
}

// take ends a session or link and returns it; false if it wasn't there any more.
func (d *Control) take(ctx context.Context, key sum) (bool, error) {
	done, err := d.changes.Take(ctx, all)
	if err != nil {
		return false, err
	}
	defer done()
	_, was := d.look(key)
	if d.store != nil {
		_, err := d.store.TakeSession(ctx, key)
		if was = err == nil; err != nil && !fleetscore.NotFound.Is(err) {
			return false, err
		}
	}
	d.sessions.mu.Lock()
	defer d.sessions.mu.Unlock()
	delete(d.sessions.open, key)
	return was, nil
}

// find returns a session or link that is valid now, as it is known here, else as the
// ledger has it: another server may just have made it. The zero session has no caller.
func (d *Control) find(ctx context.Context, secret string, link bool) (session, error) {
	if len(secret) != secretLength {
		return session{}, nil
	}
	key := sumOf(secret)
	x, known := d.look(key)
	if !known && d.store != nil {
		if err := d.lookAgain(ctx); err != nil {
			return session{}, err
		}
		x, known = d.look(key)
	}
	now := d.now()
	if !known || x.link != link || !now.Before(x.ends) || now.Sub(x.seen) >= d.settings.Load().Sessions.Idle.D() || !d.valid(x.caller) {
		return session{}, nil
	}
	return x, nil
}

func (d *Control) look(key sum) (session, bool) {
	d.sessions.mu.Lock()
	defer d.sessions.mu.Unlock()
	if x := d.sessions.open[key]; x != nil {
		return *x, true
	}
	return session{}, false
}

// gather is how long a read of the ledger that unknown cookies cause waits for others
// that want the same, so that such cookies cause few reads, however many there are.
const gather = 50 * time.Millisecond

// lookAgain reads the ledger's sessions, unless another call began to do so after this
// one came.
func (d *Control) lookAgain(ctx context.Context) error {
	s := &d.sessions
	came := s.reads.Load()
	done, err := s.looking.Take(ctx, all)
	if err != nil {
		return err
	}
	defer done()
	if s.reads.Load() > came {
		return nil
	}
	timer := time.NewTimer(gather)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.reads.Add(1)
	return d.readSessions(ctx)
}

// readSessions reads the ledger's sessions.
func (d *Control) readSessions(ctx context.Context) error {
	done, err := d.changes.Take(ctx, all)
	if err != nil {
		return err
	}
	defer done()
	list, err := d.store.Sessions(ctx)
	if err != nil {
		return err
	}
	open := make(map[sum]*session, len(list))
	for _, l := range list {
		c, err := callerOf(l.Who)
		if err != nil {
			d.log.Warn("a session can't be read and is refused", "error", err)
			continue
		}
		open[l.ID] = &session{link: l.Link, caller: c, seen: l.Seen, ends: l.Ends, noted: l.Seen}
	}
	s := &d.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, x := range open {
		if was := s.open[k]; was != nil && was.seen.After(x.seen) {
			x.seen = was.seen
		}
	}
	s.open = open
	return nil
}

// noteSessions writes the uses of sessions that the ledger doesn't know, and removes
// sessions that have ended.
func (d *Control) noteSessions(ctx context.Context) {
	at := map[[32]byte]time.Time{}
	s := &d.sessions
	s.mu.Lock()
	for k, x := range s.open {
		if x.seen.After(x.noted) {
			at[k] = x.seen
		}
	}
	s.mu.Unlock()
	err := d.store.SessionsSeen(ctx, at)
	if err == nil {
		now := d.now()
		err = d.store.RemoveSessions(ctx, now, now.Add(-d.settings.Load().Sessions.Idle.D()))
	}
	if err != nil {
		d.troubles.sessions.Failed(slog.LevelWarn, "the last use of sessions could not be noted", err, "sessions", len(at))
		return
	}
	d.troubles.sessions.Works("the last use of sessions is noted again")
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, t := range at {
		if x := s.open[k]; x != nil && x.noted.Before(t) {
			x.noted = t
		}
	}
}

// Link makes the code of a link that signs a browser in as the caller: it works
// once and for a short time.
func (d *Control) Link(ctx context.Context, c Caller) (code string, expires time.Time, err error) {
	code, err = d.add(ctx, c, true, codeLife)
	return code, d.now().Add(codeLife).UTC(), err
}

// LocalLink makes the code of a link that signs in the browser of the user who runs
// the server.
func (d *Control) LocalLink(ctx context.Context) (string, error) {
	code, _, err := d.Link(ctx, Caller{Role: fleetscore.RoleAdministrator, Name: Local})
	return code, err
}

// Redeem signs a browser in by a link's code. A code that doesn't work is a
// Refusal, unless the browser is signed in already.
func (d *Control) Redeem(w http.ResponseWriter, r *http.Request, code string) *Refusal {
	const op = "sign in"
	s, err := d.find(r.Context(), code, true)
	mine := false
	if err == nil && s.caller.Role != "" {
		mine, err = d.take(r.Context(), sumOf(code))
	}
	switch {
	case err != nil:
		return away(op, err)
	case mine:
		return d.begin(w, r, s.caller)
	}
	if cookie, err := r.Cookie(d.cfg.Cookie); err == nil {
		if _, ok, err := d.bySession(r.Context(), cookie.Value); ok && err == nil {
			return nil // the link was followed twice
		}
	}
	refusal := d.wrong(r, "this link was used before or is too old")
	refusal.Op, refusal.Subject = op, ""
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
	return d.begin(w, r, c)
}

// begin opens a session and gives the browser its cookie.
func (d *Control) begin(w http.ResponseWriter, r *http.Request, c Caller) *Refusal {
	life := d.settings.Load().Sessions.Longest.D()
	id, err := d.add(r.Context(), c, false, life)
	if err != nil {
		return away("sign in", err)
	}
	http.SetCookie(w, d.cookie(id, int(life/time.Second)))
	return nil
}

func (d *Control) cookie(value string, age int) *http.Cookie {
	return &http.Cookie{Name: d.cfg.Cookie, Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: d.cfg.Secure, SameSite: http.SameSiteStrictMode}
}

// SignOut ends the session of a browser, at every server.
func (d *Control) SignOut(w http.ResponseWriter, r *http.Request) *Refusal {
	http.SetCookie(w, d.cookie("", -1))
	cookie, err := r.Cookie(d.cfg.Cookie)
	if err != nil || len(cookie.Value) != secretLength {
		return nil
	}
	key := sumOf(cookie.Value)
	if _, known := d.look(key); !known && d.store != nil {
		if err := d.lookAgain(r.Context()); err != nil {
			return away("sign out", err)
		}
		if _, known = d.look(key); !known {
			return nil
		}
	}
	if _, err := d.take(r.Context(), key); err != nil {
		return away("sign out", err)
	}
	return nil
}

// bySession finds the caller of a session that hasn't ended.
func (d *Control) bySession(ctx context.Context, id string) (Caller, bool, error) {
	s, err := d.find(ctx, id, false)
	if err != nil || s.caller.Role == "" {
		return Caller{}, false, err
	}
	now := d.now().UTC()
	d.sessions.mu.Lock()
	if x := d.sessions.open[sumOf(id)]; x != nil && x.seen.Before(now) {
		x.seen = now
	}
	d.sessions.mu.Unlock()
	if s.caller.via == viaToken {
		if t := d.known(s.caller.token); t != nil {
			t.use(s.caller.secret, now)
		}
	}
	return s.caller, true, nil
}
