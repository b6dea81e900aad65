package ledger

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Token is what the ledger keeps of a token: everything but its secrets.
type Token struct {
	ID      string // stands in the token's text, so that it is found without comparing secrets
	Name    string
	Role    fleetscore.Role
	Hash    [32]byte // SHA-256 of the token's whole text
	Created time.Time
	Used    time.Time // hour of the last use; zero means never
	Expires time.Time // refused from then on; zero means never
	Rotated time.Time // when its secret was replaced last; zero means never

	// A token of the role join is for one node of Pool; Node is the node that has joined
	// by it, and empty before. A token of the role node that has both is for that node
	// only.
	Pool string
	Node fleetscore.NodeID

	// Repositories bounds a token of the roles image-pull and image-push: names of
	// repositories, or beginnings of names that end in *; empty means all of them.
	Repositories []string

	// The secret before is valid until Old.Until, so that a secret can be replaced
	// while it is in use.
	Old OldSecret
}

// OldSecret is the secret of a token that was replaced.
type OldSecret struct {
	Hash  [32]byte
	Until time.Time // refused from then on; zero means that there is none
	Used  time.Time // hour of the last use after it was replaced; zero means never
}

// TokenUse is when the secrets of a token were last used; zero means unknown.
type TokenUse struct{ Current, Old time.Time }

// Tokens keeps tokens without their secrets. Changes put AccessTopic.
type Tokens interface {
	// Tokens are all tokens, by name.
	Tokens(ctx context.Context) ([]Token, error)
	// PutToken adds a token; kind Conflict if there is one of that name.
	PutToken(ctx context.Context, t Token) error
	// ChangeToken changes the token of a name as decided by change, which gets the
	// token as it is; kind NotFound if there is none. Identifier, name, role and pool stay.
	ChangeToken(ctx context.Context, name string, change func(t *Token) error) error
	// RemoveToken removes the token of a name; kind NotFound if there is none.
	RemoveToken(ctx context.Context, name string) error
	// TokensUsed notes when tokens were last used, by their identifiers. Tokens
	// that were removed in the meantime are passed over.
	TokensUsed(ctx context.Context, at map[string]TokenUse) error
}

const tokenColumns = `id, name, role, hash, created, used, expires, rotated, old_hash, old_until, old_used, pool, node, repositories`

func scanToken(scan func(...any) error) (Token, error) {
	var t Token
	var hash, oldHash, repositories string
	var created, used, expires, rotated, oldUntil, oldUsed int64
	if err := scan(&t.ID, &t.Name, &t.Role, &hash, &created, &used, &expires, &rotated, &oldHash, &oldUntil, &oldUsed, &t.Pool, &t.Node, &repositories); err != nil {
		return t, err
	}
	t.Created, t.Used, t.Expires, t.Rotated = timeOf(created), timeOf(used), timeOf(expires), timeOf(rotated)
	t.Old.Until, t.Old.Used = timeOf(oldUntil), timeOf(oldUsed)
	if repositories != "" {
		t.Repositories = strings.Fields(repositories)
	}
	err := readHash(&t.Hash, hash)
	if err == nil && oldUntil != 0 {
		err = readHash(&t.Old.Hash, oldHash)
	}
	if err != nil {
		return t, fleetscore.Errorf(fleetscore.Corrupt, "read token", t.Name, "its hash isn't one").WithHint("remove it and create another")
	}
	return t, nil
}

func readHash(into *[32]byte, text string) error {
	if len(text) != hex.EncodedLen(len(into)) {
		return hex.ErrLength
	}
	_, err := hex.Decode(into[:], []byte(text))
	return err
}

// Tokens implements the role Tokens.
func (l *core) Tokens(ctx context.Context) ([]Token, error) {
	return query(ctx, l, "read tokens", "", scanToken, `SELECT `+tokenColumns+` FROM tokens ORDER BY name`)
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
				WithHint("choose another name; to replace its secret: fleetscore token rotate %s", t.Name)
		}
		x.event(AccessTopic)
		return x.exec(`INSERT INTO tokens (`+tokenColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			t.ID, t.Name, string(t.Role), hex.EncodeToString(t.Hash[:]), micros(t.Created), micros(t.Used), micros(t.Expires),
			micros(t.Rotated), hex.EncodeToString(t.Old.Hash[:]), micros(t.Old.Until), micros(t.Old.Used), t.Pool, string(t.Node), strings.Join(t.Repositories, " "))
	})
}

// ChangeToken implements the role Tokens.
func (l *core) ChangeToken(ctx context.Context, name string, change func(t *Token) error) error {
	return l.update(ctx, "change token", name, func(x *tx) error {
		if err := x.lock("token " + name); err != nil {
			return err
		}
		t, err := scanToken(x.row(`SELECT `+tokenColumns+` FROM tokens WHERE name = ?`, name).Scan)
		if err != nil {
			return err
		}
		if err := change(&t); err != nil {
			return err
		}
		x.event(AccessTopic)
		return x.exec(`UPDATE tokens SET hash = ?, created = ?, used = ?, expires = ?, rotated = ?, old_hash = ?, old_until = ?, old_used = ?, node = ? WHERE name = ?`,
			hex.EncodeToString(t.Hash[:]), micros(t.Created), micros(t.Used), micros(t.Expires),
			micros(t.Rotated), hex.EncodeToString(t.Old.Hash[:]), micros(t.Old.Until), micros(t.Old.Used), string(t.Node), name)
	})
}

// RemoveToken implements the role Tokens.
func (l *core) RemoveToken(ctx context.Context, name string) error {
	return l.update(ctx, "remove token", name, func(x *tx) error {
		var id string
		x.event(AccessTopic)
		return x.row(`DELETE FROM tokens WHERE name = ? RETURNING id`, name).Scan(&id)
	})
}

// TokensUsed implements the role Tokens.
func (l *core) TokensUsed(ctx context.Context, at map[string]TokenUse) error {
	if len(at) == 0 {
		return nil
	}
	return l.update(ctx, "note use of tokens", "", func(x *tx) error {
		for id, u := range at {
			if err := x.exec(`UPDATE tokens SET used = CASE WHEN used < ? THEN ? ELSE used END, old_used = CASE WHEN old_used < ? THEN ? ELSE old_used END WHERE id = ?`,
				micros(u.Current), micros(u.Current), micros(u.Old), micros(u.Old), id); err != nil {
				return err
			}
		}
		return nil
	})
}

// Session is a browser that is signed in, or a link that can sign one in. The ledger
// doesn't know what its holder may do.
type Session struct {
	ID    [32]byte // SHA-256 of the secret in the browser's cookie or in the link
	Link  bool
	Who   string // its holder, as package access writes it
	Begun time.Time
	Seen  time.Time // the last use
	Ends  time.Time // refused from then on
}

// Sessions keeps sessions, so that they are valid at every server of the ledger and
// outlive a restart. Changes put AccessTopic, except for a later use.
type Sessions interface {
	// Sessions are all sessions and links, the one with the latest use first.
	Sessions(ctx context.Context) ([]Session, error)
	// PutSession adds one. If there are more than most of its kind, those whose last
	// use is the longest ago are removed.
	PutSession(ctx context.Context, s Session, most int) error
	// TakeSession removes one and returns it; kind NotFound if there is none, so that
	// only one caller gets it.
	TakeSession(ctx context.Context, id [32]byte) (Session, error)
	// SessionsSeen notes the last uses of sessions. Sessions that were removed in the
	// meantime are passed over.
	SessionsSeen(ctx context.Context, at map[[32]byte]time.Time) error
	// RemoveSessions removes those that have ended or weren't used since a time.
	RemoveSessions(ctx context.Context, now, unused time.Time) error
}

const sessionColumns = `id, link, who, begun, seen, ends`

func scanSession(scan func(...any) error) (Session, error) {
	var s Session
	var id string
	var link, begun, seen, ends int64
	if err := scan(&id, &link, &s.Who, &begun, &seen, &ends); err != nil {
		return s, err
	}
	s.Link, s.Begun, s.Seen, s.Ends = link == 1, timeOf(begun), timeOf(seen), timeOf(ends)
	return s, readHash(&s.ID, id)
}

// Sessions implements the role Sessions.
func (l *core) Sessions(ctx context.Context) ([]Session, error) {
	return query(ctx, l, "read sessions", "", scanSession, `SELECT `+sessionColumns+` FROM sessions ORDER BY seen DESC, id`)
}

// PutSession implements the role Sessions.
func (l *core) PutSession(ctx context.Context, s Session, most int) error {
	link := 0
	if s.Link {
		link = 1
	}
	return l.update(ctx, "begin session", "", func(x *tx) error {
		x.event(AccessTopic)
		if err := x.exec(`INSERT INTO sessions (`+sessionColumns+`) VALUES (?, ?, ?, ?, ?, ?)`,
			hex.EncodeToString(s.ID[:]), link, s.Who, micros(s.Begun), micros(s.Seen), micros(s.Ends)); err != nil {
			return err
		}
		return x.exec(`DELETE FROM sessions WHERE link = ? AND id NOT IN (SELECT id FROM sessions WHERE link = ? ORDER BY seen DESC, begun DESC, id LIMIT ?)`, link, link, most)
	})
}

// TakeSession implements the role Sessions.
func (l *core) TakeSession(ctx context.Context, id [32]byte) (out Session, err error) {
	err = l.update(ctx, "end session", "", func(x *tx) (err error) {
		x.event(AccessTopic)
		out, err = scanSession(x.row(`DELETE FROM sessions WHERE id = ? RETURNING `+sessionColumns, hex.EncodeToString(id[:])).Scan)
		return err
	})
	return out, err
}

// SessionsSeen implements the role Sessions.
func (l *core) SessionsSeen(ctx context.Context, at map[[32]byte]time.Time) error {
	if len(at) == 0 {
		return nil
	}
	return l.update(ctx, "note use of sessions", "", func(x *tx) error {
		for id, t := range at {
			if err := x.exec(`UPDATE sessions SET seen = ? WHERE id = ? AND seen < ?`, micros(t), hex.EncodeToString(id[:]), micros(t)); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveSessions implements the role Sessions.
func (l *core) RemoveSessions(ctx context.Context, now, unused time.Time) error {
	return l.update(ctx, "remove sessions", "", func(x *tx) error {
		n, err := x.change(`DELETE FROM sessions WHERE ends <= ? OR seen < ?`, micros(now), micros(unused))
		if n > 0 {
			x.event(AccessTopic)
		}
		return err
	})
}
