package access

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// MaxJoin bounds how long a one-time token may be unused.
const MaxJoin = 90 * 24 * time.Hour

// CreateJoin makes a one-time token by which one node may join a pool. Its text is
// returned once and not stored. It expires unused.
func (d *Control) CreateJoin(ctx context.Context, pool string, expires time.Time) (ledger.Token, string, error) {
	const op = "create one-time token"
	now := d.now().UTC()
	switch {
	case d.store == nil:
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.Invalid, op, pool, "this server keeps no tokens")
	case !expires.After(now) || expires.After(now.Add(MaxJoin)):
		return ledger.Token{}, "", fleetscore.Errorf(fleetscore.Invalid, op, pool, "the time of expiry, %s, isn't within the next %d days", expires.UTC().Format(time.RFC3339), MaxJoin/(24*time.Hour))
	}
	id := strings.ToLower(rand.Text()[:12])
	text := textOf(id)
	t := ledger.Token{ID: id, Name: "join-" + pool + "-" + id[:6], Role: fleetscore.RoleJoin, Hash: sumOf(text), Created: now, Expires: expires.UTC(), Pool: pool}
	return t, text, d.keep(ctx, t)
}

// CreateNode makes the credential of a node that a pool starts. It is for that node of that
// pool only, and has the node's name.
func (d *Control) CreateNode(ctx context.Context, pool string, node fleetscore.NodeID) (text string, err error) {
	if d.store == nil {
		return "", fleetscore.Errorf(fleetscore.Invalid, "create credential", string(node), "this server keeps no tokens")
	}
	id := strings.ToLower(rand.Text()[:12])
	text = textOf(id)
	return text, d.keep(ctx, ledger.Token{ID: id, Name: string(node), Role: fleetscore.RoleNode, Hash: sumOf(text), Created: d.now().UTC(), Pool: pool, Node: node})
}

// keep keeps a new token.
func (d *Control) keep(ctx context.Context, t ledger.Token) error {
	done, err := d.changes.Take(ctx, all)
	if err != nil {
		return err
	}
	defer done()
	if err := d.store.PutToken(ctx, t); err != nil {
		return err
	}
	d.put(t)
	return nil
}

// Credential is a token's text that a node made for itself. Only its hash is ever sent,
// so that a joining node whose answer was lost can ask again.
func Credential() (text, id string, hash [32]byte) {
	id = strings.ToLower(rand.Text()[:12])
	text = textOf(id)
	return text, id, sumOf(text)
}

// CredentialOf is identifier and hash of a text that Credential made.
func CredentialOf(text string) (id string, hash [32]byte, ok bool) {
	id, ok = idOf(text)
	return id, sumOf(text), ok
}

// Join exchanges the caller's one-time token for the credential of a node, which is for
// that node of that pool only. The same credential may join again by the same token,
// which changes nothing. Kind Conflict if another node has joined by it.
func (d *Control) Join(ctx context.Context, c Caller, host, id string, hash [32]byte) (ledger.Token, error) {
	const op = "join pool"
	if c.Role != fleetscore.RoleJoin || c.Of == "" {
		return ledger.Token{}, fleetscore.Errorf(fleetscore.Invalid, op, c.Name, "this needs a one-time token").WithHint("fleetscore pool join-token POOL makes one")
	}
	if len(id) != 12 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return ledger.Token{}, fleetscore.Errorf(fleetscore.Invalid, op, c.Name, "%q can't identify a credential", id)
	}
	// The name depends on the credential alone, so that asking again gives the same one.
	name := c.Of + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(hash[:])[:8])
	t := ledger.Token{ID: id, Name: name, Role: fleetscore.RoleNode, Hash: hash, Created: d.now().UTC(), Pool: c.Of, Node: fleetscore.NodeID(NodeName(name, hostLabel(host)))}
	var used ledger.Token
	err := d.store.ChangeToken(ctx, c.Name, func(x *ledger.Token) error {
		if x.Node != "" && x.Node != t.Node {
			return fleetscore.Errorf(fleetscore.Conflict, op, c.Name, "the one-time token was used already: node %s joined pool %s by it", x.Node, x.Pool).
				WithHint("each node needs a token of its own: fleetscore pool join-token %s", x.Pool)
		}
		x.Node = t.Node
		used = *x
		return nil
	})
	if err != nil {
		return ledger.Token{}, err
	}
	d.put(used)
	if err := d.keep(ctx, t); fleetscore.Conflict.Is(err) { // the answer was lost, and the node asks again
		all, err := d.store.Tokens(ctx)
		if err != nil {
			return ledger.Token{}, err
		}
		for _, have := range all {
			if have.Name == name && have.Hash == t.Hash {
				d.put(have)
				return have, nil
			}
		}
		return ledger.Token{}, fleetscore.Errorf(fleetscore.Conflict, op, c.Name, "another node has the name %s", name)
	} else if err != nil {
		return ledger.Token{}, err
	}
	return t, nil
}

// hostLabel is the part of a host's name that the name of a node shows.
func hostLabel(host string) string {
	host, _, _ = strings.Cut(host, ".")
	label := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return -1
	}, host)
	if label == "" {
		return "node"
	}
	return label[:min(len(label), 20)]
}
