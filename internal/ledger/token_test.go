package ledger

import (
	"crypto/sha256"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
)

// TestTokens: tokens survive a restart, names are unique, the last use never moves
// back, and a removed token is gone.
func TestTokens(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := openAt(t, path)
	press := Token{ID: "a1", Name: "press", Role: fleetscore.RoleDevice, Hash: sha256.Sum256([]byte("one")), Created: noon}
	anna := Token{ID: "b2", Name: "anna", Role: fleetscore.RoleViewer, Hash: sha256.Sum256([]byte("two")), Created: noon, Expires: noon.Add(time.Hour)}
	for _, tok := range []Token{press, anna} {
		if err := l.PutToken(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
	}
	again := press
	again.ID = "c3"
	if err := l.PutToken(t.Context(), again); !fleetscore.Conflict.Is(err) {
		t.Errorf("a second token of one name: %v, want kind conflict", err)
	}
	for _, at := range []time.Time{noon.Add(2 * time.Hour), noon.Add(time.Hour)} {
		if err := l.TokensUsed(t.Context(), map[string]TokenUse{"a1": {Current: at}, "gone": {Current: at}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openAt(t, path)
	press.Used = noon.Add(2 * time.Hour)
	if diff := cmp.Diff([]Token{anna, press}, must[[]Token](t)(l.Tokens(t.Context()))); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
	if err := l.RemoveToken(t.Context(), "anna"); err != nil {
		t.Error(err)
	}
	if err := l.RemoveToken(t.Context(), "anna"); !fleetscore.NotFound.Is(err) {
		t.Errorf("a token removed twice: %v, want kind not_found", err)
	}
	if diff := cmp.Diff([]Token{press}, must[[]Token](t)(l.Tokens(t.Context()))); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
}
