package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
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

// token is a token of the ledger, and when it was last used.
type token struct {
	ledger.Token
	used  atomic.Int64 // hour of the last use, in hours since 1970
	noted atomic.Int64 // hour of the last use that the ledger knows
}

func newToken(t ledger.Token) *token {
	x := &token{Token: t}
	if !t.Used.IsZero() {
		x.used.Store(hour(t.Used))
		x.noted.Store(hour(t.Used))
	}
	return x
}

func hour(t time.Time) int64 { return t.Unix() / 3600 }

func (t *token) use(now time.Time) {
	if h := hour(now); t.used.Load() < h {
		t.used.Store(h)
	}
}

func (t *token) expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// state is the token's current state.
func (t *token) state() ledger.Token {
	out := t.Token
	if h := t.used.Load(); h != 0 {
		out.Used = time.Unix(h*3600, 0).UTC()
	}
	return out
}

// maxName bounds the name of a token.
const maxName = 64

// Create makes a token. Its text is returned once and not stored. The zero time means
// that the token never expires. Kind Conflict if a token of that name exists.
func (d *Control) Create(ctx context.Context, role fleetscore.Role, name string, expires time.Time) (ledger.Token, string, error) {
	const op = "create token"
	if d.store == nil {
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.Invalid, op, name, "this server keeps no tokens")
	}
	if !slices.Contains(fleetscore.Roles, role) {
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.Invalid, op, name, "the role %q is unknown", role).
			WithHint("the roles are device, viewer, operator, administrator and node")
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
	id := strings.ToLower(rand.Text()[:12])
	text := tokenStart + id + "_" + Secret()
	t := ledger.Token{ID: id, Name: name, Role: role, Hash: sumOf(text), Created: now, Expires: expires}
	if err := d.store.PutToken(ctx, t); err != nil {
		return ledger.Token{}, "", err
	}
	d.mu.Lock()
	d.tokens[id] = newToken(t)
	d.mu.Unlock()
	return t, text, nil
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
	if err := d.store.RemoveToken(ctx, name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.tokens, func(_ string, t *token) bool { return t.Name == name })
	return nil
}

// noteEvery is how often the ledger learns which tokens were used.
const noteEvery = time.Minute

// Run notes in the ledger when tokens were last used, to the hour, until ctx ends.
func (d *Control) Run(ctx context.Context) error {
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			d.note(last)
			return nil
		}
		d.note(ctx)
	}
}

// note writes the uses that the ledger doesn't know. After a failure only the time of
// the last use is missing, so the failure is logged and the write is tried again.
func (d *Control) note(ctx context.Context) {
	if d.store == nil {
		return
	}
	at := map[string]time.Time{}
	d.mu.RLock()
	var noted []*token
	for id, t := range d.tokens {
		if h := t.used.Load(); h > t.noted.Load() {
			at[id] = time.Unix(h*3600, 0).UTC()
			noted = append(noted, t)
		}
	}
	d.mu.RUnlock()
	if err := d.store.TokensUsed(ctx, at); err != nil {
		d.log.Warn("the last use of tokens could not be noted", "tokens", len(at), "error", err)
		return
	}
	for _, t := range noted {
		t.noted.Store(hour(at[t.ID]))
	}
}
