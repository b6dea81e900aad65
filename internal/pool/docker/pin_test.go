package docker

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// dockerConfig writes a file as docker login does.
func dockerConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestFindLogin: the login of an image's registry is found by each name that docker uses,
// and no error tells a password.
func TestFindLogin(t *testing.T) {
	t.Parallel()
	auth := base64.StdEncoding.EncodeToString([]byte("me:hunter2:x"))
	file := dockerConfig(t, `{"auths": {"reg.example.com:5000": {"auth": "`+auth+`"}, "https://index.docker.io/v1/": {"username": "hub", "password": "hunter3"}}, "credHelpers": {"helped.example.com": "pass"}}`)
	for image, want := range map[string]Login{
		"reg.example.com:5000/team/x:v1": {User: "me", Password: "hunter2:x"}, "reg.example.com/team/x": {}, "python:3.12": {User: "hub", Password: "hunter3"}, "team/x": {User: "hub", Password: "hunter3"}, "localhost/x": {}, "docker.io/team/x": {User: "hub", Password: "hunter3"},
	} {
		if got, err := FindLogin(file, image); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", image, got, err, want)
		}
	}
	for text, want := range map[string]string{
		`{"auths": {"a.b": {"auth": "hunter2"}}}`: "the entry of a.b isn't a name and a password",
		`{"auths": "hunter2"}`:                    "isn't JSON as docker login writes it",
	} {
		if _, err := FindLogin(dockerConfig(t, text), "a.b/x"); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, images := range map[string][]string{`{"credsStore": "hunter2"}`: {"python:3.12", "a.b/x"}, `{"credHelpers": {"a.b": "hunter2"}}`: {"a.b/x"}, `{"credHelpers": {"https://index.docker.io/v1/": "hunter2"}}`: {"team/x"}} {
		for _, image := range images { // it may be public
			if l, err := FindLogin(dockerConfig(t, text), image); err != nil || l.User+l.Password != "" || !strings.Contains(l.Unread, "the server starts none") || strings.Contains(l.Unread, "hunter2") {
				t.Errorf("%s of %s: %+v, %v", image, text, l, err)
			}
		}
	}
	if _, err := FindLogin(filepath.Join(t.TempDir(), "none"), "x"); !fleetscore.NotFound.Is(err) {
		t.Errorf("no file: %v", err)
	}
}

// testPrivate: an image of a registry that wants a password is found and pulled with it, and
// not without; the password is in no log or error.
func testPrivate(t *testing.T, engine *testkit.Docker, s *httptest.Server) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "hunter2" {
			w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
	s.Start()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	d, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	name1 := strings.TrimPrefix(s.URL, "http://") + "/team/private:v1"
	ref, err := name.ParseReference(name1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithAuth(&authn.Basic{Username: "me", Password: "hunter2"})); err != nil {
		t.Fatal(err)
	}
	const helper = "a helper program has it"
	for password, allowed := range map[string]bool{"hunter2": true, "hunter3": false, "": false} {
		login := Login{User: "me", Password: password}
		if password == "" {
			login = Login{Unread: helper}
		}
		var said bytes.Buffer
		p, _ := provider(t, engine.Host, "obedient", fleetscore.DockerConfig{Image: name1})
		p.log = slog.New(slog.NewTextHandler(&said, nil))
		p.deps.Login = func(context.Context, string) (Login, func(), error) { return login, func() {}, nil }
		pinned, pinErr := Pin(t.Context(), engine.Host, name1, login)
		pullErr := p.pull(t.Context(), strings.TrimSuffix(name1, ":v1")+"@"+d.String())
		if all := fmt.Sprint(said.String(), pinErr, pullErr); strings.Contains(all, "hunter") {
			t.Errorf("the password is told: %s", all)
		}
		if allowed {
			if pinErr != nil || pullErr != nil || pinned != strings.TrimSuffix(name1, ":v1")+"@"+d.String() {
				t.Errorf("with the password: %s, %v, %v", pinned, pinErr, pullErr)
			}
			engine.Run(t, "rmi", pinned)
			continue
		}
		if pinErr == nil || pullErr == nil {
			t.Errorf("with password %q: %v, %v", password, pinErr, pullErr)
		} else if told := strings.Contains(pinErr.Error(), helper) && strings.Contains(pullErr.Error(), helper); told != (password == "") {
			t.Errorf("with password %q, what to do: %v, %v", password, pinErr, pullErr)
		}
	}
	// What only the engine has, it has by a digest of its own.
	if got, err := Pin(t.Context(), engine.Host, "empty:v1", Login{}); err != nil || !strings.HasPrefix(got, "sha256:") {
		t.Errorf("an image of no registry: %s, %v", got, err)
	}
	if got, err := Pin(t.Context(), engine.Host, "127.0.0.1:1/x@"+d.String(), Login{}); err != nil || got != "127.0.0.1:1/x@"+d.String() {
		t.Errorf("a digest: %s, %v", got, err)
	}
}
