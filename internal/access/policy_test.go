package access

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access/sas"
)

// TestPolicy: a signature gives the right to send to its own address until it expires, if the
// policy has that right, and only where senders of Event Hubs send.
func TestPolicy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, key string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	d, _, clock, l := world(t, Config{})
	cfg := fleetscore.Config{Hub: fleetscore.HubConfig{EventHubs: &fleetscore.EventHubsConfig{Name: "hub", Hosts: []string{"fleet.servicebus.windows.net"}, Policies: []fleetscore.PolicyConfig{
		{Name: "send", KeyFile: file("send", "first\n"), SecondaryKeyFile: file("second", "second"), Rights: []string{"send"}},
		{Name: "listen", KeyFile: file("listen", "k"), Rights: []string{"listen"}},
		{Name: "root", KeyFile: file("root", "k"), Rights: []string{"manage"}},
		{Name: "gone", KeyFile: filepath.Join(dir, "gone"), Rights: []string{"send"}},
	}}}}
	if _, err := l.PutConfig(t.Context(), noon, "hub: {}", cfg); err != nil {
		t.Fatal(err)
	}
	if err := d.readSettings(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := d.NewMux(func(w http.ResponseWriter, _ *http.Request, why *Refusal) { http.Error(w, why.Message, why.Status) })
	for _, pattern := range []string{"POST /{hub}/messages", "POST /{hub}/publishers/{publisher}/messages", "/api/v1/hubs/{hub}/messages"} {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			c := CallerOf(r.Context())
			w.Header().Set("Caller", c.String()+"/"+c.Device()+"/"+string(c.Role))
		})
	}
	ask := func(path, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "http://10.0.0.7:7180"+path, nil)
		r.RemoteAddr = "10.0.0.8:1"
		r.Header.Set("Authorization", token)
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		return w
	}
	later := noon.Add(time.Minute)
	sign := func(address, policy, key string) string { return sas.Sign(address, policy, key, later) }
	for _, c := range []struct{ path, token, caller string }{
		{"/hub/messages", sign("https://10.0.0.7/hub", "send", "first"), "the policy send//device"},
		{"/hub/messages?timeout=60", sign("http://10.0.0.7:7180/hub/messages", "send", "second"), "the policy send//device"},
		{"/Hub/messages", sign("sb://fleet.servicebus.windows.net", "root", "k"), "the policy root//device"},
		{"/hub/publishers/press-1/messages", sign("https://10.0.0.7/hub/publishers/press-1", "send", "first"), "the policy send/press-1/device"},
	} {
		if w := ask(c.path, c.token); w.Code != http.StatusOK || w.Header().Get("Caller") != c.caller {
			t.Errorf("%s: %d %s %s, want %s", c.path, w.Code, w.Body, w.Header().Get("Caller"), c.caller)
		}
	}
	for _, c := range []struct {
		path, token string
		status      int
		want        string
	}{
		{"/hub/messages", sign("https://10.0.0.7/hub", "send", "third"), 401, "InvalidSignature"},
		{"/hub/messages", sign("https://10.0.0.7/hub", "nobody", "first"), 401, "InvalidSignature"},
		{"/hub/messages", sign("https://10.0.0.7/hub", "send", ""), 401, "InvalidSignature"},
		{"/hub/messages", sign("https://10.0.0.9/hub", "send", "first"), 401, "InvalidAudience"},
		{"/hub/messages", sign("https://10.0.0.7/hub/publishers/press-1", "send", "first"), 401, "InvalidAudience"},
		{"/hub/publishers/press-2/messages", sign("https://10.0.0.7/hub/publishers/press-1", "send", "first"), 401, "InvalidAudience"},
		{"/hub/messages", sign("https://10.0.0.7/hub", "listen", "k"), 401, "'Send' claim(s) are required"},
		{"/hub/messages", sas.Sign("https://10.0.0.7/hub", "send", "first", noon), 401, "ExpiredToken: the token expired at 2026-11-23T12:00:00Z"},
		{"/hub/messages", "SharedAccessSignature sr=x", 401, "MalformedToken"},
		{"/hub/messages", sign("https://10.0.0.7/hub", "gone", "first"), 503, "can't be read"},
		{"/api/v1/hubs/hub/messages", sign("https://10.0.0.7", "root", "k"), 401, "for /HUB/messages only"},
	} {
		if w := ask(c.path, c.token); w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s with %s: %d %s, want %d %s", c.path, c.token, w.Code, w.Body, c.status, c.want)
		}
	}
	clock.add(2 * time.Minute) // and the guesses from this address are forgotten
	file("send", "new")
	if w := ask("/hub/messages", sas.Sign("https://10.0.0.7/hub", "send", "new", clock.now().Add(time.Minute))); w.Code != http.StatusOK {
		t.Errorf("a new key isn't read: %d %s", w.Code, w.Body)
	}
	if _, err := l.PutConfig(t.Context(), noon, "hub: {}", fleetscore.Config{}); err != nil {
		t.Fatal(err)
	}
	if err := d.readSettings(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w := ask("/hub/messages", sas.Sign("https://10.0.0.7/hub", "send", "new", clock.now().Add(time.Minute))); w.Code != http.StatusUnauthorized {
		t.Errorf("a policy that was removed is taken: %d %s", w.Code, w.Body)
	}
}
