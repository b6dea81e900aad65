package testkit

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// openIDRelease is the release of a certified OpenID provider, whose example server tests
// run.
const openIDRelease = "github.com/zitadel/oidc/v3/example/server@v3.52.0"

// OpenID is an OpenID provider in a process of its own. It knows one client and one user,
// whose verified address is OpenIDEmail.
type OpenID struct {
	Issuer           string
	ClientID, Secret string
}

// OpenIDEmail is the address of the provider's user.
const OpenIDEmail = "test-user@zitadel.ch"

// StartOpenID starts a provider, which ends with the test. It sends browsers back to the
// address callback only.
func StartOpenID(t testing.TB, callback string) OpenID {
	t.Helper()
	program := GoProgram(t, openIDRelease)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil { // the program takes a number only
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "PORT="+port, "REDIRECT_URI="+callback)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
	})
	p := OpenID{Issuer: "http://localhost:" + port + "/", ClientID: "web", Secret: "secret"}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) { // it has no other way to say that it listens
		resp, err := http.Get(p.Issuer + ".well-known/openid-configuration")
		if err == nil {
			resp.Body.Close()
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("the OpenID provider doesn't listen: %v", err)
		}
	}
}

var openIDForm = regexp.MustCompile(`name="id" value="([^"]*)"`)

// SignIn is the provider's user who signs in with a browser at the address to which the
// server sent it. It returns the answer of the server to which the provider sends the
// browser back.
func (p OpenID) SignIn(t testing.TB, browser *http.Client, address string) *http.Response {
	t.Helper()
	resp, err := browser.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	form := openIDForm.FindSubmatch(page)
	if err != nil || form == nil {
		t.Fatalf("the provider's page: %v, %s", err, page)
	}
	resp, err = browser.PostForm(p.Issuer+"login/username", map[string][]string{"id": {string(form[1])}, "username": {"test-user@localhost"}, "password": {"verysecure"}})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
