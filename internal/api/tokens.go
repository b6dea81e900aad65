package api

import (
	"context"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/pool"
)

// Token is a token without its secret.
type Token struct {
	Name    string            `json:"name"`
	Role    fleetscore.Role   `json:"role"`
	Created time.Time         `json:"created"`
	Used    *time.Time        `json:"used,omitempty" doc:"when it was last used, to the hour"`
	Expires *time.Time        `json:"expires,omitempty" doc:"the token is refused from then on"`
	Expired bool              `json:"expired"`
	Pool    string            `json:"pool,omitempty" doc:"of a token for a single node: its pool"`
	Node    fleetscore.NodeID `json:"node,omitempty" doc:"of a one-time token: the node that has joined by it; of a node's credential: the node"`
	Images  []string          `json:"repositories,omitempty" doc:"the repositories of images that it is for, if not for all"`
	Rotated *time.Time        `json:"rotated,omitempty" doc:"when it got its last secret, if it had another before"`

	OldUntil *time.Time `json:"old_until,omitempty" doc:"until when the secret before is valid, if it still is"`
	OldUsed  *time.Time `json:"old_used,omitempty" doc:"when the secret before was last used after it was replaced, to the minute"`
}

// NewToken is a token that was just created, or got a new secret. Its text is shown only this once.
type NewToken struct {
	Token
	Secret string `json:"secret" doc:"the token's text, which the server doesn't keep"`
}

// Caller describes the sender of the request, as the server identified it.
type Caller struct {
	Role fleetscore.Role   `json:"role"`
	Name string            `json:"name" doc:"of the token, in the client certificate, or of the person who signed in"`
	Pool string            `json:"pool,omitempty" doc:"of a token for a single node: its pool"`
	Node fleetscore.NodeID `json:"node,omitempty" doc:"the only node that the token is for; absent if it isn't for one"`

	NodePrefix string `json:"node_prefix,omitempty" doc:"what the names of nodes begin with that use this token or certificate"`
}

// SignInLink signs a browser in once.
type SignInLink struct {
	Code    string    `json:"code" doc:"open /?token=CODE in the browser"`
	Expires time.Time `json:"expires"`
}

func (s *server) tokenOf(t ledger.Token) Token {
	out := Token{Name: t.Name, Role: t.Role, Created: t.Created, Used: known(t.Used), Expires: known(t.Expires), Expired: !t.Expires.IsZero() && !s.now().Before(t.Expires), Rotated: known(t.Rotated), Pool: t.Pool, Node: t.Node, Images: t.Repositories}
	if s.now().Before(t.Old.Until) {
		out.OldUntil, out.OldUsed = known(t.Old.Until), known(t.Old.Used)
	}
	return out
}

func (s *server) registerTokens(api huma.API) {
	add(api, huma.Operation{OperationID: "who am I", Method: http.MethodGet, Path: "/whoami", Tags: []string{"access"}, Summary: "The role and name of who sent the request"},
		func(ctx context.Context, _ *struct{}) (*body[Caller], error) {
			c := access.CallerOf(ctx)
			return answer(Caller{Role: c.Role, Name: c.Name, Pool: c.Of, Node: c.Node, NodePrefix: c.NodePrefix()}), nil
		})
	add(api, huma.Operation{OperationID: "make sign-in link", Method: http.MethodPost, Path: "/sign-in-links", DefaultStatus: http.StatusCreated, Tags: []string{"access"},
		Summary: "A code that signs a browser in, once, with the rights of the token that was sent"},
		func(ctx context.Context, _ *struct{}) (*body[SignInLink], error) {
			code, expires, err := s.deps.Access.Link(ctx, access.CallerOf(ctx))
			if err != nil {
				return nil, err
			}
			return answer(SignInLink{code, expires}), nil
		})
	add(api, huma.Operation{OperationID: "list tokens", Method: http.MethodGet, Path: "/tokens", Tags: []string{"access"}, Summary: "Tokens, without their secrets"}, s.listTokens)
	add(api, huma.Operation{OperationID: "create token", Method: http.MethodPost, Path: "/tokens", DefaultStatus: http.StatusCreated, Tags: []string{"access"},
		Summary: "Create a token; its text is shown only this once"}, s.createToken)
	add(api, huma.Operation{OperationID: "rotate token", Method: http.MethodPost, Path: "/tokens/{name}/rotate", Tags: []string{"access"},
		Summary: "Give a token a new secret, which is shown only this once; the secret before stays valid for a while"}, s.rotateToken)
	add(api, huma.Operation{OperationID: "remove token", Method: http.MethodDelete, Path: "/tokens/{name}", Tags: []string{"access"}, Summary: "End a token at once"}, s.removeToken)
}

func (s *server) listTokens(ctx context.Context, in *struct {
	Limit int    `query:"limit" default:"1000" minimum:"1" maximum:"10000"`
	After string `query:"after" doc:"the field next of the previous page"`
}) (*body[List[Token]], error) {
	var page []Token
	for _, t := range s.deps.Access.List() {
		if t.Name <= in.After {
			continue
		}
		if len(page) == in.Limit {
			return answerList(page, page[len(page)-1].Name), nil
		}
		page = append(page, s.tokenOf(t))
	}
	return answerList(page, ""), nil
}

type createTokenInput struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Body   struct {
		Role    fleetscore.Role `json:"role" enum:"device,viewer,operator,administrator,node,image-pull,image-push"`
		Name    string          `json:"name" minLength:"1" maxLength:"64"`
		Expires *time.Time      `json:"expires,omitempty" doc:"the token is refused from then on; without this field it never expires"`

		Repositories []string `json:"repositories,omitempty" maxItems:"100" doc:"of the roles image-pull and image-push: the repositories that the token is for, such as team/*; without this field all of them"`
	}
}

func (s *server) createToken(ctx context.Context, in *createTokenInput) (*body[NewToken], error) {
	var expires time.Time
	if in.Body.Expires != nil {
		expires = in.Body.Expires.UTC()
	}
	t, secret, err := s.deps.Access.Create(ctx, in.Body.Role, in.Body.Name, expires, in.Body.Repositories...)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "create token", t.Name+" of the role "+string(t.Role))
	return answer(NewToken{s.tokenOf(t), secret}), nil
}

type rotateTokenInput struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Name   string `path:"name"`
	Body   struct {
		Overlap fleetscore.Duration `json:"overlap" doc:"for how long the secret before stays valid, such as 24h; 0s refuses all older secrets at once"`
		Expires *time.Time          `json:"expires,omitempty" doc:"the token is refused from then on; without this field it is valid for as long as it was when it got its last secret"`
	}
}

func (s *server) rotateToken(ctx context.Context, in *rotateTokenInput) (*body[NewToken], error) {
	var expires time.Time
	if in.Body.Expires != nil {
		expires = in.Body.Expires.UTC()
	}
	t, secret, err := s.deps.Access.Rotate(ctx, in.Name, in.Body.Overlap.D(), expires)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "rotate token", t.Name)
	return answer(NewToken{s.tokenOf(t), secret}), nil
}

func (s *server) removeToken(ctx context.Context, in *struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Name   string `path:"name"`
}) (*struct{}, error) {
	if err := s.deps.Access.Remove(ctx, in.Name); err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "remove token", in.Name)
	return nil, nil
}

// Join is what an agent says that joins a pool by a one-time token. It makes its
// credential itself and sends only its hash.
type Join struct {
	Host string `json:"host" maxLength:"255" doc:"the machine's name; a part of it is in the node's name"`
	ID   string `json:"id" minLength:"12" maxLength:"12" doc:"identifier in the credential's text fst_ID_SECRET"`
	Hash string `json:"hash" minLength:"64" maxLength:"64" doc:"SHA-256 of the credential's text, in hexadecimal"`
}

// Joined is the node that has joined.
type Joined struct {
	Node fleetscore.NodeID `json:"node" doc:"its name; the credential is for this node only"`
	Pool string            `json:"pool"`
}

// joinExpires is how long a one-time token may be unused unless it is said.
const joinExpires = 24 * time.Hour

func (s *server) registerJoin(api huma.API) {
	add(api, huma.Operation{OperationID: "create join token", Method: http.MethodPost, Path: "/pools/{name}/join-tokens", DefaultStatus: http.StatusCreated, Tags: []string{"pools"},
		Summary: "Create a one-time token by which one node may join a static pool; its text is shown only this once"}, s.createJoin)
	add(api, huma.Operation{OperationID: "join", Method: http.MethodPost, Path: "/nodes/join", DefaultStatus: http.StatusCreated, Tags: []string{"node protocol"},
		Summary: "Exchange a one-time token for the credential of a node"}, s.join)
	add(api, huma.Operation{OperationID: "remove node", Method: http.MethodDelete, Path: "/nodes/{id}", Tags: []string{"pools"},
		Summary: "End a node that has joined by a one-time token, and its credential"}, s.removeNode)
}

func (s *server) createJoin(ctx context.Context, in *struct {
	Author string `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	Name   string `path:"name"`
	Body   struct {
		Expires *time.Time `json:"expires,omitempty" doc:"if it is unused until then it is refused; in 24 hours unless given, at most in 90 days"`
	}
}) (*body[NewToken], error) {
	const op = "create one-time token"
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	c, ok := cfg.Pools[in.Name]
	switch {
	case !ok:
		return nil, noPool(op, in.Name)
	case c.Provider != pool.Static:
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, in.Name, "the provider of the pool, %s, starts its nodes itself", c.Provider).WithHint("nodes join pools of the provider static")
	}
	expires := s.now().Add(joinExpires)
	if in.Body.Expires != nil {
		expires = *in.Body.Expires
	}
	t, secret, err := s.deps.Access.CreateJoin(ctx, in.Name, expires)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, in.Author, "create one-time token", t.Name)
	return answer(NewToken{s.tokenOf(t), secret}), nil
}

func (s *server) join(ctx context.Context, in *struct{ Body Join }) (*body[Joined], error) {
	var hash [32]byte
	if n, err := hex.Decode(hash[:], []byte(in.Body.Hash)); err != nil || n != len(hash) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "join pool", in.Body.Host, "hash: it isn't a SHA-256 in hexadecimal")
	}
	c := access.CallerOf(ctx)
	t, err := s.deps.Access.Join(ctx, c, in.Body.Host, in.Body.ID, hash)
	if err != nil {
		return nil, err
	}
	s.audit(ctx, c.Name, "join pool", string(t.Node))
	return answer(Joined{t.Node, t.Pool}), nil
}

func (s *server) removeNode(ctx context.Context, in *struct {
	Author string            `header:"X-Fleetscore-User" doc:"name of the user, for the audit"`
	ID     fleetscore.NodeID `path:"id"`
}) (*struct{}, error) {
	const op = "remove node"
	for _, t := range s.deps.Access.List() {
		if t.Role != fleetscore.RoleNode || t.Node != in.ID {
			continue
		}
		if err := s.deps.Access.Remove(ctx, t.Name); err != nil {
			return nil, err
		}
		s.audit(ctx, in.Author, op, string(in.ID))
		// It may never have registered, or be forgotten.
		if err := s.deps.Broker.Goodbye(ctx, in.ID); err != nil && !fleetscore.NotFound.Is(err) {
			return nil, err
		}
		return nil, nil
	}
	n, err := s.deps.Ledger.Node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return nil, fleetscore.Errorf(fleetscore.Conflict, op, string(in.ID), "it has no credential of its own, as it hasn't joined pool %s by a one-time token", n.Pool).
		WithHint("nodes that a pool starts end by its scale; those with a token that several nodes use end by fleetscore token remove")
}
