package access

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

// TestJoin: a one-time token is exchanged for the credential of one node, which is for that
// node of that pool only and lives on after a restart; the same credential may ask again,
// another one is told who used the token; a token that nobody used expires.
func TestJoin(t *testing.T) {
	t.Parallel()
	d, m, c, l := world(t, Config{})
	ctx := t.Context()
	made, text, err := d.CreateJoin(ctx, "lab", noon.Add(time.Hour))
	if err != nil || made.Role != fleetscore.RoleJoin || made.Pool != "lab" || !strings.HasPrefix(made.Name, "join-lab-") {
		t.Fatalf("one-time token %+v, %v", made, err)
	}
	for _, role := range fleetscore.Roles {
		if got := ask(m, routes[role], "Authorization", "Bearer "+text).Code; got != http.StatusForbidden {
			t.Errorf("the one-time token may do what needs the role %s: %d", role, got)
		}
	}
	caller, ok := d.byToken(text)
	if !ok || caller.Role != fleetscore.RoleJoin || caller.Of != "lab" {
		t.Fatalf("caller %+v, %v", caller, ok)
	}
	secret, id, hash := Credential()
	tok, err := d.Join(ctx, caller, "press.example.com", id, hash)
	if err != nil || tok.Pool != "lab" || !strings.HasPrefix(string(tok.Node), "lab-") || !strings.HasSuffix(string(tok.Node), ".press") {
		t.Fatalf("joined as %+v, %v", tok, err)
	}
	if again, err := d.Join(ctx, caller, "press.example.com", id, hash); err != nil || again.Node != tok.Node {
		t.Errorf("the same credential asked again: %+v, %v", again, err)
	}
	_, otherID, otherHash := Credential()
	if _, err := d.Join(ctx, caller, "press", otherID, otherHash); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "was used already: node "+string(tok.Node)) {
		t.Errorf("another node joins by the same token: %v", err)
	}
	if tokens, err := l.Tokens(ctx); err != nil || len(tokens) != 2 {
		t.Errorf("tokens %+v, %v; want the one-time token and one credential", tokens, err)
	}
	restarted, err := Open(ctx, Config{}, Deps{Ledger: l, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []*Control{d, restarted} {
		node, ok := at.byToken(secret)
		if !ok || node.Role != fleetscore.RoleNode || node.Of != "lab" || !node.Owns(tok.Node) {
			t.Errorf("the credential is %+v, %v", node, ok)
		}
		for _, other := range []fleetscore.NodeID{"", "cpu-1", fleetscore.NodeID(tok.Name + ".other"), tok.Node + "x"} {
			if node.Owns(other) {
				t.Errorf("the credential of %s may act as %q", tok.Node, other)
			}
		}
	}
	if err := d.Remove(ctx, tok.Name); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.byToken(secret); ok {
		t.Error("a removed credential is accepted")
	}
	if _, err := d.Join(ctx, caller, "press", otherID, otherHash); !fleetscore.Conflict.Is(err) {
		t.Errorf("after the node was removed, its one-time token: %v", err)
	}
	_, unused, err := d.CreateJoin(ctx, "lab", noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	c.add(time.Hour)
	if _, ok := d.byToken(unused); ok {
		t.Error("a one-time token is accepted after its time")
	}
	for _, expires := range []time.Time{{}, c.now(), c.now().Add(MaxJoin + time.Second)} {
		if _, _, err := d.CreateJoin(ctx, "lab", expires); !fleetscore.Invalid.Is(err) {
			t.Errorf("a one-time token until %s: %v, want kind invalid", expires, err)
		}
	}
	viewer := Caller{Role: fleetscore.RoleViewer, Of: "lab"}
	if _, err := d.Join(ctx, viewer, "press", otherID, otherHash); !fleetscore.Invalid.Is(err) {
		t.Errorf("a viewer joins: %v", err)
	}
	for _, bad := range []string{"", "ABCDEFGHIJKL", "abcdefghijk1", "abcdefghijklm"} {
		if _, err := d.Join(ctx, caller, "press", bad, otherHash); !fleetscore.Invalid.Is(err) {
			t.Errorf("a credential with the identifier %q: %v", bad, err)
		}
	}
}
