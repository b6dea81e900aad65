package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// sum is the SHA-256 of a secret. A plain hash is enough, because every secret has
// 256 random bits: guessing isn't possible, so a slow hash isn't needed.
type sum [sha256.Size]byte

func sumOf(secret string) sum {
	var buf [128]byte // so that hashing a token allocates no memory
	return sha256.Sum256(append(buf[:0], secret...))
}

// equal compares in constant time.
func (s sum) equal(other sum) bool { return subtle.ConstantTimeCompare(s[:], other[:]) == 1 }

// tokenStart begins the text of every token, so that programs that search texts for
// secrets can recognise tokens.
const tokenStart = "fst_"

// Secret is a text of 256 random bits.
func Secret() string {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // it never fails
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// idOf is the identifier in a token's text, fst_ID_SECRET.
func idOf(text string) (string, bool) {
	rest, ok := strings.CutPrefix(text, tokenStart)
	if !ok {
		return "", false
	}
	id, _, ok := strings.Cut(rest, "_")
	return id, ok
}

// token is a token of the ledger, and when its secrets were last used.
type token struct {
	ledger.Token
	current, old use
}

// use is when a secret was last used. The time is kept coarsely, so that a token in use
// isn't written to the ledger all the time.
type use struct {
	last  atomic.Int64 // microseconds
	noted atomic.Int64 // what the ledger knows
}

// How coarsely uses are kept. The secret before is watched more closely, because
// somebody waits for its last use.
const (
	currentStep = time.Hour
	oldStep     = time.Minute
)

func (u *use) at(now time.Time, step time.Duration) {
	if t := now.Truncate(step).UnixMicro(); u.last.Load() < t {
		u.last.Store(t)
	}
}

// unnoted is the last use if the ledger doesn't know it.
func (u *use) unnoted() time.Time {
	if t := u.last.Load(); t > u.noted.Load() {
		return time.UnixMicro(t).UTC()
	}
	return time.Time{}
}

func (u *use) note(t time.Time) {
	if !t.IsZero() {
		u.noted.Store(t.UnixMicro())
	}
}

// latest is the later one of the last use and what the ledger knows.
func (u *use) latest(known time.Time) time.Time {
	if t := u.last.Load(); t != 0 && time.UnixMicro(t).After(known) {
		return time.UnixMicro(t).UTC()
	}
	return known
}

// newToken is a token as the ledger has it; before is the same token as it was known, or
// nil. The uses that the ledger doesn't know are kept.
func newToken(t ledger.Token, before *token) *token {
	x := &token{Token: t}
	if before != nil && before.Hash == t.Hash {
		x.current.last.Store(before.current.last.Load())
	}
	if before != nil && before.Old.Hash == t.Old.Hash {
		x.old.last.Store(before.old.last.Load())
	}
	x.current.note(t.Used)
	x.old.note(t.Old.Used)
	return x
}

// accepts reports whether a secret is valid. It may be the token's current one or the
// one before.
func (t *token) accepts(secret sum, now time.Time) bool {
	if !t.Expires.IsZero() && !now.Before(t.Expires) {
		return false
	}
	return secret.equal(sum(t.Hash)) || t.isOld(secret, now)
}

func (t *token) isOld(secret sum, now time.Time) bool {
	return now.Before(t.Old.Until) && secret.equal(sum(t.Old.Hash))
}

// use notes that a valid secret was used.
func (t *token) use(secret sum, now time.Time) {
	if t.isOld(secret, now) {
		t.old.at(now, oldStep)
	} else {
		t.current.at(now, currentStep)
	}
}

// state is the token's current state.
func (t *token) state() ledger.Token {
	out := t.Token
	out.Used, out.Old.Used = t.current.latest(t.Used), t.old.latest(t.Old.Used)
	return out
}

// maxName bounds the name of a token.
const maxName = 64

// Create makes a token. Its text is returned once and not stored. The zero time means
// that the token never expires. Repositories are for the roles of images only. Kind
// Conflict if a token of that name exists.
func (d *Control) Create(ctx context.Context, role fleetscore.Role, name string, expires time.Time, repositories ...string) (ledger.Token, string, error) {
	const op = "create token"
	if d.store == nil {
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.Invalid, op, name, "this server keeps no tokens")
	}
	if !slices.Contains(fleetscore.Roles, role) {
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.Invalid, op, name, "the role %q is unknown", role).
			WithHint("the roles are device, viewer, operator, administrator, node, image-pull and image-push")
	}
	ok := name != "" && len(name) <= maxName
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}
	if !ok {
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.Invalid, op, name, "the name must have 1 to %d letters, digits, - and _", maxName)
	}
	now := d.now().UTC()
	if !expires.IsZero() && !expires.After(now) {
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.Invalid, op, name, "the time of expiry, %s, is in the past", expires.UTC().Format(time.RFC3339))
	}
	if err := checkRepositories(role, name, repositories); err != nil {
		return ledger.Token{}, "", err
	}
	id := strings.ToLower(rand.Text()[:12])
	text := textOf(id)
	t := ledger.Token{ID: id, Name: name, Role: role, Hash: sumOf(text), Created: now, Expires: expires, Repositories: repositories}
	return t, text, d.keep(ctx, t)
}

// textOf makes the text of a token with a new secret.
func textOf(id string) string { return tokenStart + id + "_" + Secret() }

// put makes a token known as the ledger has it.
func (d *Control) put(t ledger.Token) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tokens[t.ID] = newToken(t, d.tokens[t.ID])
}

// MaxOverlap bounds for how long the secret before stays valid.
const MaxOverlap = 90 * 24 * time.Hour

// Rotate gives a token a new secret, whose text is returned once and not stored. Name,
// role and identity stay. The secret before is valid for the overlap; with no overlap
// all older secrets are refused at once. If expires is zero, the token is valid for as
// long from now on as it was when it got its last secret. Kind Conflict if the token has
// expired, or if a secret before is still valid and overlap isn't 0.
func (d *Control) Rotate(ctx context.Context, name string, overlap time.Duration, expires time.Time) (ledger.Token, string, error) {
	const op = "rotate token"
	if d.store == nil {
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.NotFound, op, name, "this server keeps no tokens")
	}
	now := d.now().UTC()
	switch {
	case overlap < 0 || overlap > MaxOverlap:
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.Invalid, op, name, "the overlap %s isn't between 0 and %d days", overlap, MaxOverlap/(24*time.Hour))
	case !expires.IsZero() && !expires.After(now):
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.Invalid, op, name, "the time of expiry, %s, is in the past", expires.UTC().Format(time.RFC3339))
	}
	done, err := d.changes.Take(ctx, all)
	if err != nil {
		return ledger.Token{}, "", err
	}
	defer done()
	var out ledger.Token
	var text string
	err = d.store.ChangeToken(ctx, name, func(t *ledger.Token) error {
		switch {
		case !t.Expires.IsZero() && !now.Before(t.Expires):
			return fleetscore.Errorf(fleetscore.Conflict, op, name, "the token expired at %s", t.Expires.Format(time.RFC3339)).
				WithHint("remove it and create another")
		case overlap > 0 && now.Before(t.Old.Until):
			return fleetscore.Errorf(fleetscore.Conflict, op, name, "the secret before is still valid, until %s; there can't be three", t.Old.Until.Format(time.RFC3339)).
				WithHint("wait until then; or, with --overlap 0, refuse all older secrets at once")
		}
		text = textOf(t.ID)
		until := now.Add(overlap)
		if !t.Expires.IsZero() && t.Expires.Before(until) {
			until = t.Expires
		}
		issued := t.Created
		if !t.Rotated.IsZero() {
			issued = t.Rotated
		}
		switch {
		case !expires.IsZero():
			t.Expires = expires
		case !t.Expires.IsZero():
			t.Expires = now.Add(t.Expires.Sub(issued))
		}
		t.Old = ledger.OldSecret{}
		if overlap > 0 {
			t.Old = ledger.OldSecret{Hash: t.Hash, Until: until}
		}
		t.Hash, t.Rotated, t.Used = sumOf(text), now, time.Time{}
		out = *t
		return nil
	})
	if err != nil {
		return ledger.Token{}, "", err
	}
	d.put(out)
	return out, text, nil
}

// List returns all tokens, by name.
func (d *Control) List() []ledger.Token {
	d.mu.RLock()
	all := slices.Collect(maps.Values(d.tokens))
	d.mu.RUnlock()
	out := make([]ledger.Token, len(all))
	for i, t := range all {
		out[i] = t.state()
	}
	slices.SortFunc(out, func(a, b ledger.Token) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Remove ends a token at once, and the sessions of browsers that signed in with it.
func (d *Control) Remove(ctx context.Context, name string) error {
	if d.store == nil {
		return fleetscore.Errorf(fleetscore.NotFound, "remove token", name, "this server keeps no tokens")
	}
	done, err := d.changes.Take(ctx, all)
	if err != nil {
		return err
	}
	defer done()
	if err := d.store.RemoveToken(ctx, name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.tokens, func(_ string, t *token) bool { return t.Name == name })
	return nil
}

// noteEvery is how often the ledger learns which tokens and sessions were used, and how
// often they are read again even if no event came.
const noteEvery = time.Minute

// Run notes in the ledger when tokens and sessions were last used, and follows the
// changes that other servers make, until ctx ends.
func (d *Control) Run(ctx context.Context) error {
	if d.store == nil {
		<-ctx.Done()
		return nil
	}
	changed, stop := d.store.Watch(ledger.AccessTopic, ledger.ConfigTopic)
	defer stop()
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	for {
		// What changed before the watch began is read first.
		if err := d.read(ctx); err == nil {
			d.troubles.read.Works("tokens are read again")
		} else if ctx.Err() == nil {
			d.troubles.read.Failed(slog.LevelWarn, "tokens can't be read again; those that are known stay in use", err)
		}
		select {
		case <-changed:
		case <-tick.C:
			d.note(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			d.note(last)
			return nil
		}
	}
}

// read reads the settings, tokens and sessions of the ledger.
func (d *Control) read(ctx context.Context) error {
	if err := d.readSettings(ctx); err != nil {
		return err
	}
	if err := d.readTokens(ctx); err != nil {
		return err
	}
	return d.readSessions(ctx)
}

func (d *Control) readTokens(ctx context.Context) error {
	done, err := d.changes.Take(ctx, all)
	if err != nil {
		return err
	}
	defer done()
	tokens, err := d.store.Tokens(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.tokens
	d.tokens = make(map[string]*token, len(tokens))
	for _, t := range tokens {
		d.tokens[t.ID] = newToken(t, known[t.ID])
	}
	return nil
}

// note writes the uses that the ledger doesn't know. After a failure only the time of
// the last use is missing, so the failure is logged and the write is tried again.
func (d *Control) note(ctx context.Context) {
	at := map[string]ledger.TokenUse{}
	d.mu.RLock()
	used := map[string]*token{}
	for id, t := range d.tokens {
		if u := (ledger.TokenUse{Current: t.current.unnoted(), Old: t.old.unnoted()}); u != (ledger.TokenUse{}) {
			at[id], used[id] = u, t
		}
	}
	d.mu.RUnlock()
	if err := d.store.TokensUsed(ctx, at); err != nil {
		d.troubles.tokens.Failed(slog.LevelWarn, "the last use of tokens could not be noted", err, "tokens", len(at))
	} else {
		d.troubles.tokens.Works("the last use of tokens is noted again")
		for id, t := range used {
			t.current.note(at[id].Current)
			t.old.note(at[id].Old)
		}
	}
	d.noteSessions(ctx)
}
