package ledger

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Token is what the ledger keeps of a token: everything but its secret.
type Token struct {
	ID      string // stands in the token's text, so that it is found without comparing secrets
	Name    string // unique
	Role    fleetscore.Role
	Hash    [32]byte // SHA-256 of the token's whole text
	Created time.Time
	Used    time.Time // the hour of the last use; zero: never
	Expires time.Time // zero: never
}

// Tokens keeps tokens without their secrets.
type Tokens interface {
	// Tokens are all tokens, by name.
	Tokens(ctx context.Context) ([]Token, error)
	// PutToken adds a token; kind Conflict if there is one of that name.
	PutToken(ctx context.Context, t Token) error
	// RemoveToken removes the token of a name; kind NotFound if there is none.
	RemoveToken(ctx context.Context, name string) error
	// TokensUsed notes when tokens were last used, by their identifiers. Tokens
	// that were removed in the meantime are passed over.
	TokensUsed(ctx context.Context, at map[string]time.Time) error
}

// Tokens implements the role Tokens.
func (l *core) Tokens(ctx context.Context) ([]Token, error) {
	return query(ctx, l, "read tokens", "", func(scan func(...any) error) (Token, error) {
		var t Token
		var hash string
		var created, used, expires int64
		if err := scan(&t.ID, &t.Name, &t.Role, &hash, &created, &used, &expires); err != nil {
			return t, err
		}
		b, err := hex.DecodeString(hash)
		if err != nil || len(b) != len(t.Hash) {
			return t, fleetscore.Errorf(fleetscore.Corrupt, "read token", t.Name, "its hash isn't one").WithHint("remove it and create another")
		}
		copy(t.Hash[:], b)
		t.Created, t.Used, t.Expires = timeOf(created), timeOf(used), timeOf(expires)
		return t, nil
	}, `SELECT id, name, role, hash, created, used, expires FROM tokens ORDER BY name`)
}

// PutToken implements the role Tokens.
func (l *core) PutToken(ctx context.Context, t Token) error {
	return l.update(ctx, "create token", t.Name, func(x *tx) error {
		var taken bool
		if err := x.row(`SELECT EXISTS (SELECT 1 FROM tokens WHERE name = ?)`, t.Name).Scan(&taken); err != nil {
			return err
		}
		if taken {
			return fleetscore.Errorf(fleetscore.Conflict, "create token", t.Name, "there is a token of that name").
				WithHint("choose another name; to replace it, create the new token first, and remove the old one once nobody uses it")
		}
		return x.exec(`INSERT INTO tokens (id, name, role, hash, created, used, expires) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			t.ID, t.Name, string(t.Role), hex.EncodeToString(t.Hash[:]), micros(t.Created), micros(t.Used), micros(t.Expires))
	})
}

// RemoveToken implements the role Tokens.
func (l *core) RemoveToken(ctx context.Context, name string) error {
	return l.update(ctx, "remove token", name, func(x *tx) error {
		var id string
		if err := x.row(`DELETE FROM tokens WHERE name = ? RETURNING id`, name).Scan(&id); err != nil {
			return err
		}
		return nil
	})
}

// TokensUsed implements the role Tokens.
func (l *core) TokensUsed(ctx context.Context, at map[string]time.Time) error {
	if len(at) == 0 {
		return nil
	}
	return l.update(ctx, "note use of tokens", "", func(x *tx) error {
		for id, t := range at {
			if err := x.exec(`UPDATE tokens SET used = ? WHERE id = ? AND used < ?`, micros(t), id, micros(t)); err != nil {
				return err
			}
		}
		return nil
	})
}
