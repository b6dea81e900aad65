package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// running is a server in a process of its own whose log can be read while it runs.
type running struct {
	t    *testing.T
	dir  string // its --dir
	url  string
	link string // the address that signs a browser in; empty if none was printed
	log  string // file
	cmd  *exec.Cmd
}

// launch starts "up" with more flags and waits until it says where it listens.
func launch(t *testing.T, shell string, flags ...string) *running {
	t.Helper()
	root := t.TempDir()
	r := &running{t: t, dir: filepath.Join(root, "data"), log: filepath.Join(root, "log")}
	file := filepath.Join(root, "fleet.yaml")
	text := fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(r.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{os.Args[0], "up", file, "--dir", r.dir, "--listen", "127.0.0.1:0"}, flags...)
	if shell != "" {
		args = append([]string{"sh", "-c", shell + ` && exec "$0" "$@"`}, args...)
	}
	r.cmd = exec.Command(args[0], args[1:]...)
	r.cmd.Env = append(os.Environ(), asCommand+"=1", "FLEETSCORE_LOG_LEVEL=debug")
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	for range 600 {
		text := r.text()
		if m := regexp.MustCompile(`API at (\S+)/api/v1,`).FindStringSubmatch(text); m != nil {
			r.url = m[1]
			r.link = regexp.MustCompile(`http\S+/\?token=\S+`).FindString(text)
			return r
		}
		time.Sleep(20 * time.Millisecond) // it has no other way to say that it listens
	}
	t.Fatalf("the server doesn't start:\n%s", r.text())
	return nil
}

func (r *running) stop() {
	if r.cmd.ProcessState != nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGINT) // that it ended before shows below
	var exit *exec.ExitError
	if err := r.cmd.Wait(); errors.As(err, &exit) && exit.ExitCode() != exitInterrupted {
		r.t.Errorf("the server ended with %v:\n%s", err, r.text())
	}
}

func (r *running) text() string {
	b, err := os.ReadFile(r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// run runs a command against the server as its user does: without any token.
func (r *running) run(args ...string) (code int, stdout, stderr string) {
	r.t.Helper()
	return command(r.t, append(args, "--server", r.url)...)
}

// token creates a token and returns its text.
func (r *running) token(role, name string, more ...string) string {
	r.t.Helper()
	code, stdout, stderr := r.run(append([]string{"token", "create", role, name}, more...)...)
	text := strings.TrimSpace(stdout)
	if code != 0 || !strings.HasPrefix(text, "fst_") || strings.Contains(stderr, text) {
		r.t.Fatalf("token create: exit %d\n%s%s", code, stdout, stderr)
	}
	return text
}

// curl asks by the real program and returns the status; the header goes by stdin, as
// the documents show.
func (r *running) curl(as *syscall.Credential, token string, args ...string) string {
	r.t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		testkit.Missing(r.t, "curl", "install it")
	}
	cmd := exec.Command("curl", append([]string{"-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "@-"}, args...)...)
	if token != "" {
		cmd.Stdin = strings.NewReader("Authorization: Bearer " + token)
	}
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		cmd.Dir = "/"
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}

// TestOnlyThisUser: before any token was made, the user who runs the server gets in
// from any folder, by commands alone, and another user of the machine by nothing.
func TestOnlyThisUser(t *testing.T) {
	t.Parallel()
	r := launch(t, "")
	if code, stdout, stderr := r.run("job", "list"); code != 0 {
		t.Errorf("this user: exit %d\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := command(t, "job", "list", "--server", strings.Replace(r.url, "127.0.0.1", "localhost", 1)); code != 0 {
		t.Errorf("this user, by localhost: exit %d\n%s", code, stderr)
	}
	for _, path := range []string{"/", "/metrics", "/jobs/x", "/api/v1/config", "/api/v1/jobs", "/api/v1/nowhere", "/api/v1/store"} {
		if got := r.curl(nil, "", r.url+path); got != "401" {
			t.Errorf("%s without a token: %s", path, got)
		}
	}
	private := []string{r.dir, filepath.Join(r.dir, "secrets"), filepath.Join(r.dir, "hub"), filepath.Join(r.dir, "spool"), filepath.Join(r.dir, "store")}
	for _, dir := range private {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, st.Mode(), err)
		}
	}
	left, err := filepath.Glob(filepath.Join(os.Getenv("XDG_STATE_HOME"), "fleetscore", "servers", "*-"+r.url[strings.LastIndexByte(r.url, ':')+1:]+".json"))
	if err != nil || len(left) != 1 {
		t.Fatalf("what the server left: %q, %v", left, err)
	}
	secret := filepath.Join(r.dir, "secrets", "admin-token")
	text, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(left[0]); err != nil || bytes.Contains(b, bytes.TrimSpace(text)) {
		t.Errorf("the file for commands holds the secret, or %v", err)
	}
	for _, file := range []string{secret, filepath.Join(r.dir, "secrets", "node-token"), filepath.Join(r.dir, "ledger.db"), left[0]} {
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, st.Mode(), err)
		}
	}

	t.Run("another user", func(t *testing.T) {
		if os.Getuid() != 0 {
			testkit.Missing(t, "a second user", "run the test as root, which can act as nobody")
		}
		// The folders above are open, so that only ours keep nobody out.
		for _, dir := range []string{os.Getenv("XDG_STATE_HOME"), filepath.Dir(r.dir), filepath.Dir(filepath.Dir(r.dir))} {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
		if got := r.curl(nobody, "", r.url+"/api/v1/jobs"); got != "401" {
			t.Errorf("nobody: %s", got)
		}
		for _, file := range append(private, secret, left[0]) {
			cmd := exec.Command("head", "-c1", file)
			if st, err := os.Stat(file); err == nil && st.IsDir() {
				cmd = exec.Command("ls", file)
			}
			cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Credential: nobody}, "/"
			if out, err := cmd.CombinedOutput(); err == nil {
				t.Errorf("nobody reads %s: %s", file, out)
			}
		}
	})

	r.stop()
	for _, file := range []string{secret, left[0]} {
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s is left after the end: %v", file, err)
		}
	}
}

// browser is what a person's browser does: it keeps cookies and says where requests
// come from.
func browser(t *testing.T) func(method, address string, form url.Values) (int, string, http.Header) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar}
	return func(method, address string, form url.Values) (int, string, http.Header) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		if method == http.MethodPost {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Sec-Fetch-Site", "same-origin")
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Header.Set("Final", resp.Request.URL.String())
		return resp.StatusCode, string(text), resp.Header
	}
}

// TestSignInLink: the address that "up" prints signs one browser in and vanishes from
// the address; "portal" prints another; a viewer signs in by a token and can't change
// anything; signing out ends it.
func TestSignInLink(t *testing.T) {
	t.Parallel()
	r := launch(t, "")
	if !strings.Contains(r.link, "/?token=") {
		t.Fatalf("up prints %q:\n%s", r.link, r.text())
	}
	mine, other := browser(t), browser(t)
	if req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, r.link, nil); err != nil {
		t.Fatal(err)
	} else if resp, err := http.DefaultTransport.RoundTrip(req); err != nil || resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("Set-Cookie") != "" {
		t.Errorf("a look at the link uses it: %v, %v", resp, err)
	}
	status, page, h := mine(http.MethodGet, r.link, nil)
	if status != 200 || !strings.Contains(page, "Pool cpu") || h.Get("Final") != r.url+"/" || !strings.Contains(page, "local user (administrator)") {
		t.Fatalf("the link: %d at %s\n%s", status, h.Get("Final"), page)
	}
	if h.Get("Content-Security-Policy") == "" || h.Get("X-Frame-Options") != "DENY" {
		t.Errorf("headers %v", h)
	}
	if status, page, _ := other(http.MethodGet, r.link, nil); status != 401 || !strings.Contains(page, "used before") {
		t.Errorf("the link in a second browser: %d\n%s", status, page)
	}
	if status, _, h := mine(http.MethodGet, r.link, nil); status != 200 || h.Get("Final") != r.url+"/" {
		t.Errorf("the link again in the same browser: %d at %s", status, h.Get("Final"))
	}
	code, another, stderr := r.run("portal")
	if code != 0 {
		t.Fatalf("portal: exit %d\n%s", code, stderr)
	}
	if status, _, _ := other(http.MethodGet, strings.TrimSpace(another), nil); status != 200 {
		t.Errorf("the address of 'fleetscore portal': %d", status)
	}
	if _, _, h := mine(http.MethodPost, r.url+"/sign-out", nil); h.Get("Final") != r.url+"/sign-in" {
		t.Errorf("sign-out leads to %s", h.Get("Final"))
	}
	if status, _, _ := mine(http.MethodGet, r.url+"/", nil); status != 401 {
		t.Errorf("after signing out: %d", status)
	}

	anna := browser(t)
	viewer, device := r.token("viewer", "anna"), r.token("device", "press")
	if status, page, _ := anna(http.MethodPost, r.url+"/sign-in", url.Values{"token": {device}}); status != 403 || !strings.Contains(page, "can&#39;t read pages") {
		t.Errorf("a device signs in: %d\n%s", status, page)
	}
	if status, page, _ := anna(http.MethodPost, r.url+"/sign-in", url.Values{"token": {"guess"}}); status != 401 || !strings.Contains(page, "token is wrong") {
		t.Errorf("a guess signs in: %d\n%s", status, page)
	}
	for _, next := range []string{"//evil.example", "https://evil.example", `/\evil.example`} {
		if _, _, h := anna(http.MethodPost, r.url+"/sign-in", url.Values{"token": {viewer}, "next": {next}}); h.Get("Final") != r.url+"/" {
			t.Errorf("signing in leads to %s", h.Get("Final"))
		}
	}
	if status, _, h := anna(http.MethodGet, r.url+"/api/v1/config", nil); status != 200 {
		t.Errorf("a signed-in viewer reads: %d %v", status, h)
	}
	if status, text, _ := anna(http.MethodPost, r.url+"/api/v1/fleets/sensors/sync", nil); status != 403 || !strings.Contains(text, "needs the role operator") {
		t.Errorf("a signed-in viewer changes: %d\n%s", status, text)
	}
}

// TestTokensOfTheServer: by curl, each role does its part and no other; no secret
// stands in logs, arguments, the ledger or the store.
func TestTokensOfTheServer(t *testing.T) {
	t.Parallel()
	r := launch(t, "")
	rows := filepath.Join(t.TempDir(), "rows")
	line := fmt.Sprintf(`{"TS":"%s","Device":"1","Tag":"pressure","Value":5}`+"\n", time.Now().UTC().Format(time.RFC3339))
	if err := os.WriteFile(rows, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{}
	for _, role := range []string{"device", "viewer", "operator", "administrator", "node"} {
		tokens[role] = r.token(role, role+"-1", "--expires", "1d")
	}
	api := r.url + "/api/v1"
	send := []string{"--data-binary", "@" + rows, "-H", "Content-Type: application/x-ndjson", api + "/hubs/hub/messages"}
	for range 200 { // the gateway opens after the API
		if r.curl(nil, tokens["device"], send...) == "200" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, c := range []struct {
		what string
		args []string
		want map[string]string
	}{
		{"send", send, map[string]string{"device": "200", "viewer": "403", "operator": "200", "administrator": "200", "node": "403"}},
		{"read", []string{api + "/config"}, map[string]string{"device": "403", "viewer": "200", "operator": "200", "administrator": "200", "node": "403"}},
		{"metrics", []string{r.url + "/metrics"}, map[string]string{"device": "403", "viewer": "200", "operator": "200", "administrator": "200", "node": "403"}},
		{"page", []string{r.url + "/"}, map[string]string{"device": "403", "viewer": "200", "operator": "200", "administrator": "200", "node": "403"}},
		{"sync", []string{"-X", "POST", api + "/fleets/none/sync"}, map[string]string{"device": "403", "viewer": "403", "operator": "404", "administrator": "404", "node": "403"}},
		{"apply", []string{"-T", rows, "-H", "Content-Type: application/yaml", api + "/config"}, map[string]string{"device": "403", "viewer": "403", "operator": "403", "administrator": "400", "node": "403"}},
		{"tokens", []string{api + "/tokens"}, map[string]string{"device": "403", "viewer": "403", "operator": "403", "administrator": "200", "node": "403"}},
		{"register", []string{"-d", `{"node":"node-1.x","pool":"cpu","slots":1}`, "-H", "Content-Type: application/json", api + "/nodes"},
			map[string]string{"device": "403", "viewer": "403", "operator": "403", "administrator": "403", "node": "200"}},
		{"register another's", []string{"-d", `{"node":"cpu-x","pool":"cpu","slots":1}`, "-H", "Content-Type: application/json", api + "/nodes"}, map[string]string{"node": "403"}},
		{"speak for another's", []string{"-d", `{"leases":[]}`, "-H", "Content-Type: application/json", api + "/nodes/cpu-x/heartbeat"}, map[string]string{"node": "403"}},
		{"who", []string{api + "/whoami"}, map[string]string{"device": "200", "viewer": "200", "operator": "200", "administrator": "200", "node": "200"}},
	} {
		for role, want := range c.want {
			if got := r.curl(nil, tokens[role], c.args...); got != want {
				t.Errorf("%s as %s: %s, want %s", c.what, role, got, want)
			}
		}
	}
	code, stdout, _ := r.run("token", "list")
	if code != 0 || strings.Count(stdout, "-1 ") != 5 || strings.Contains(stdout, "fst_") {
		t.Errorf("token list: exit %d\n%s", code, stdout)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(tokens["viewer"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := r.run("job", "list", "--token-file", file); code != 0 {
		t.Errorf("a viewer's command: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := r.run("token", "list", "--token-file", file); code != 10 || !strings.Contains(stderr, "needs the role administrator") {
		t.Errorf("a viewer lists tokens: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := r.run("token", "remove", "viewer-1"); code != 0 {
		t.Errorf("token remove: exit %d\n%s", code, stderr)
	}
	if got := r.curl(nil, tokens["viewer"], api+"/config"); got != "401" {
		t.Errorf("a removed token: %s", got)
	}

	own, err := os.ReadFile(filepath.Join(r.dir, "secrets", "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := os.ReadFile(filepath.Join(r.dir, "secrets", "node-token"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{strings.TrimSpace(string(own)), strings.TrimSpace(string(nodes))}
	for _, text := range tokens {
		secrets = append(secrets, text[strings.LastIndexByte(text[:17], '_')+1:], text)
	}
	r.nowhere(secrets)
}

// nowhere checks that no secret stands in the log, in the arguments of a process, or
// in any file of the server but secrets.
func (r *running) nowhere(secrets []string) {
	r.t.Helper()
	arguments, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(arguments) == 0 {
		testkit.Missing(r.t, "/proc", "run the test on Linux")
	}
	files := append(arguments, r.log)
	err = filepath.WalkDir(r.dir, func(name string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.HasPrefix(name, filepath.Join(r.dir, "secrets")) {
			files = append(files, name)
		}
		return nil // files come and go
	})
	if err != nil {
		r.t.Fatal(err)
	}
	looked := 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it ended
		}
		looked++
		for _, s := range secrets {
			if bytes.Contains(b, []byte(s)) {
				r.t.Errorf("%s holds a secret", name)
			}
		}
	}
	if looked < 10 {
		r.t.Errorf("only %d files were looked at", looked)
	}
}

// TestOpen: --open lets everybody of this machine in, but no page of another site, and
// is refused beyond loopback.
func TestOpen(t *testing.T) {
	t.Parallel()
	r := launch(t, "", "--open")
	if got := r.curl(nil, "", r.url+"/api/v1/tokens"); got != "200" {
		t.Errorf("without a token: %s", got)
	}
	if got := r.curl(nil, "wrong", r.url+"/"); got != "200" {
		t.Errorf("with a token that it doesn't know: %s", got)
	}
	if got := r.curl(nil, "", "-X", "POST", "-H", "Origin: http://evil.example", r.url+"/api/v1/fleets/none/sync"); got != "403" {
		t.Errorf("a foreign page: %s", got)
	}
	if got := r.curl(nil, "", "-H", "Host: evil.example", r.url+"/"); got != "421" {
		t.Errorf("a foreign name: %s", got)
	}
	if strings.Contains(r.text(), "?token=") || !strings.Contains(r.text(), "open to every user") {
		t.Errorf("it says:\n%s", r.text())
	}
	if code, _, stderr := command(t, "serve", "--open", "--listen", "0.0.0.0:0", "--tls-self-signed", "--dir", t.TempDir()); code != 10 || !strings.Contains(stderr, "--open beyond this machine") {
		t.Errorf("open to the world: exit %d\n%s", code, stderr)
	}
}

// TestSelfSigned: a server with a certificate of its own: commands and its nodes trust
// it by themselves, others by its file alone, and a job is scored over TLS.
func TestSelfSigned(t *testing.T) {
	t.Parallel()
	r := launch(t, "", "--tls-self-signed")
	if !strings.HasPrefix(r.url, "https://") || !regexp.MustCompile(`fingerprint is ([0-9A-F]{2}:){31}[0-9A-F]{2}\n`).MatchString(r.text()) {
		t.Fatalf("it says:\n%s", r.text())
	}
	registered := false
	for range 400 {
		code, stdout, stderr := r.run("node", "list", "-o", "json")
		if code != 0 {
			t.Fatalf("node list: exit %d\n%s", code, stderr)
		}
		if registered = strings.Contains(stdout, `"idle"`); registered {
			break
		}
		time.Sleep(50 * time.Millisecond) // a page of the API, not an event
	}
	if !registered {
		t.Errorf("no node of its own gets in:\n%s", r.text())
	}
	ca := filepath.Join(r.dir, "secrets", "tls-ca.pem")
	token := r.token("viewer", "anna")
	if got := r.curl(nil, token, "--cacert", ca, r.url+"/api/v1/jobs"); got != "200" {
		t.Errorf("curl with the authority: %s", got)
	}
	if got := r.curl(nil, token, r.url+"/api/v1/jobs"); !strings.Contains(got, "exit status 60") {
		t.Errorf("curl without it: %s", got)
	}
	if got := r.curl(nil, token, "--cacert", ca, "--tls-max", "1.1", r.url+"/api/v1/jobs"); got == "200" {
		t.Error("TLS 1.1 is spoken")
	}
	plain := strings.Replace(r.url, "https", "http", 1)
	if resp, err := http.Get(plain); err != nil || resp.StatusCode != 400 {
		t.Errorf("plain HTTP: %v, %v", resp, err)
	} else if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), "HTTPS server") {
		t.Errorf("plain HTTP: %s, %v", b, err)
	}
	if code, _, stderr := command(t, "job", "list", "--server", plain); code != 10 || !strings.Contains(stderr, "use https://") {
		t.Errorf("a command by plain HTTP: exit %d\n%s", code, stderr)
	}
	stranger := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(stranger, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := func(cfg client.Config) error { // as on a machine where the server left nothing
		cfg.Server, cfg.TokenFile = strings.Replace(r.url, "127.0.0.1", "[::ffff:127.0.0.1]", 1), stranger
		c, err := client.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.Get(t.Context(), "/jobs", nil, &struct{}{})
	}
	if err := elsewhere(client.Config{}); err == nil || !strings.Contains(err.Error(), "--ca-file") {
		t.Errorf("without its file: %v", err)
	}
	if err := elsewhere(client.Config{CAFile: ca, ServerName: "localhost"}); err != nil {
		t.Errorf("with its file: %v", err)
	}
	if st, err := os.Stat(filepath.Join(r.dir, "secrets", "tls-key.pem")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", st, err)
	}
}

// TestChangedCertificate: the server follows the files of its certificate, and what
// reaches it goes on.
func TestChangedCertificate(t *testing.T) {
	t.Parallel()
	one, two := launch(t, "", "--tls-self-signed"), launch(t, "", "--tls-self-signed")
	files := t.TempDir()
	copyFrom := func(r *running) {
		t.Helper()
		for _, name := range []string{"tls-key.pem", "tls-cert.pem"} {
			b, err := os.ReadFile(filepath.Join(r.dir, "secrets", name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(files, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	copyFrom(one)
	r := launch(t, "", "--tls-cert", filepath.Join(files, "tls-cert.pem"), "--tls-key", filepath.Join(files, "tls-key.pem"))
	shown := func() string {
		c, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := shown()
	if code, _, stderr := r.run("job", "list"); code != 0 {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	copyFrom(two)
	for range 200 {
		if shown() != before {
			break
		}
		time.Sleep(50 * time.Millisecond) // it looks once a second
	}
	if shown() == before {
		t.Error("the server shows the old certificate")
	}
	if code, _, stderr := r.run("job", "list"); code != 0 {
		t.Errorf("after the change: exit %d\n%s", code, stderr)
	}
	if err := os.WriteFile(filepath.Join(files, "tls-cert.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		shown()
		if strings.Contains(r.text(), "the old one stays in use") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !strings.Contains(r.text(), "the old one stays in use") {
		t.Errorf("a broken file isn't named:\n%s", r.text())
	}
}

// TestHeldConnections: strangers who hold as many connections as they can, silent or
// in the middle of a request, don't keep others out or use up the process's files.
func TestHeldConnections(t *testing.T) {
	t.Parallel()
	r := launch(t, "ulimit -n 256")
	address := strings.TrimPrefix(r.url, "http://")
	for i := range 600 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"); err != nil {
				continue // it was closed to make room
			}
		}
		if i%100 == 99 {
			if code, _, stderr := r.run("job", "list"); code != 0 {
				t.Errorf("with %d connections held: exit %d\n%s", i+1, code, stderr)
			}
		}
	}
	if open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(r.cmd.Process.Pid), "fd")); err == nil && len(open) > 230 {
		t.Errorf("%d files are open", len(open))
	}
	if strings.Contains(r.text(), "too many open files") {
		t.Errorf("files ran out:\n%s", r.text())
	}
}

// TestNodeWithItsOwnToken: a node on another machine has a token of its own and a
// name that belongs to it.
func TestNodeWithItsOwnToken(t *testing.T) {
	t.Parallel()
	r := launch(t, "")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(r.token("node", "lab")), 0o600); err != nil {
		t.Fatal(err)
	}
	n := exec.Command(os.Args[0], "node", "--pool", "cpu", "--server", r.url)
	n.Env = append(os.Environ(), asCommand+"=1", "FLEETSCORE_NODE_TOKEN_FILE="+file)
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = n.Process.Signal(syscall.SIGINT)
		_ = n.Wait() // its status is the signal's
	}()
	for range 400 {
		code, stdout, stderr := r.run("node", "list", "-o", "json")
		if code != 0 {
			t.Fatalf("node list: exit %d\n%s", code, stderr)
		}
		var nodes []fleetscore.Node
		if err := json.Unmarshal([]byte(stdout), &nodes); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if strings.HasPrefix(string(n.ID), "lab.cpu-") && n.State.Works() {
				return
			}
		}
		time.Sleep(50 * time.Millisecond) // a page of the API, not an event
	}
	t.Errorf("the node doesn't register:\n%s", r.text())
}

// TestTokenOutlivesRestart: a program that runs on while the server is started anew
// gets in again by the file.
func TestTokenOutlivesRestart(t *testing.T) {
	t.Parallel()
	p := startServer(t, fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models")))
	before := p.token()
	var pools api.List[api.Pool]
	if err := p.Get(t.Context(), "/pools", nil, &pools); err != nil {
		t.Fatal(err)
	}
	p.kill()
	p.start()
	if p.token() == before {
		t.Error("a start keeps the token of the one before")
	}
	if err := p.Get(t.Context(), "/pools", nil, &pools); err != nil {
		t.Error(err)
	}
}

// TestTokenRotate: the command replaces a secret while the old one stays valid, says
// until when, and with --overlap 0 refuses all older secrets at once.
func TestTokenRotate(t *testing.T) {
	t.Parallel()
	r := launch(t, "")
	first := r.token("viewer", "anna", "--expires", "10d")
	status := func(text string) string { return r.curl(nil, text, r.url+"/api/v1/jobs") }
	rotate := func(args ...string) (text, said string) {
		t.Helper()
		code, stdout, stderr := r.run(append([]string{"token", "rotate", "anna"}, args...)...)
		text = strings.TrimSpace(stdout)
		if code != 0 || !strings.HasPrefix(text, "fst_") || strings.Contains(stderr, text) {
			t.Fatalf("token rotate: exit %d\n%s%s", code, stdout, stderr)
		}
		return text, stderr
	}
	second, said := rotate()
	if a, b := status(first), status(second); a != "200" || b != "200" || !strings.Contains(said, "valid until") {
		t.Errorf("after a rotation the old secret gets %s and the new one %s\n%s", a, b, said)
	}
	code, stdout, _ := r.run("token", "list", "-o", "json")
	var list []api.Token
	if err := json.Unmarshal([]byte(stdout), &list); code != 0 || err != nil || len(list) != 1 || list[0].OldUntil == nil || list[0].OldUsed == nil || list[0].Rotated == nil {
		t.Errorf("token list: exit %d, %v\n%s", code, err, stdout)
	}
	if code, _, stderr := r.run("token", "rotate", "anna"); code != fleetscore.Conflict.ExitCode() || !strings.Contains(stderr, "--overlap 0") {
		t.Errorf("a third secret: exit %d\n%s", code, stderr)
	}
	third, said := rotate("--overlap", "0")
	if a, b, c := status(first), status(second), status(third); a != "401" || b != "401" || c != "200" || !strings.Contains(said, "all older secrets") {
		t.Errorf("without overlap the secrets get %s, %s and %s\n%s", a, b, c, said)
	}
	for _, bad := range [][]string{{"--overlap", "soon"}, {"--overlap", "-1h"}, {"--expires", "0s"}, {"--overlap", "400d"}} {
		if code, _, stderr := r.run(append([]string{"token", "rotate", "anna"}, bad...)...); code != exitUsage {
			t.Errorf("%v: exit %d\n%s", bad, code, stderr)
		}
	}
}

// TestClientCertificateOfCommands: a command and a node act by a certificate alone, told
// what is wrong with it in the command's own words; a renewed certificate is taken by a
// client that is running, whose old one has expired.
func TestClientCertificateOfCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	caCert, caKey := issue(t, "plant", nil, nil, 24*time.Hour)
	writePEM(t, ca, caCert, nil)
	r := launch(t, "", "--tls-self-signed", "--tls-client-ca", ca)
	code, yaml, stderr := r.run("config", "show")
	if code != 0 {
		t.Fatalf("config show: %d %s", code, stderr)
	}
	file := filepath.Join(dir, "fleet.yaml")
	yaml += "\naccess: {certificates: [{name: 'anna*', role: viewer}, {name: node-1, role: node}]}\n"
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := r.run("apply", file); code != 0 {
		t.Fatalf("apply: %d %s", code, stderr)
	}
	mine := filepath.Join(dir, "anna.pem")
	renew := func(life time.Duration) {
		t.Helper()
		cert, key := issue(t, "anna", caCert, caKey, life)
		writePEM(t, mine, cert, key)
	}
	renew(time.Hour)
	serverCA := filepath.Join(r.dir, "secrets", "tls-ca.pem")
	as := func(cert string, args ...string) (int, string, string) {
		t.Helper()
		return r.run(append(args, "--ca-file", serverCA, "--client-cert", cert)...)
	}
	eventually(t, "the new entries are in force", func() bool { code, _, _ := as(mine, "job", "list"); return code == 0 })
	if code, _, stderr := as(mine, "token", "list"); code != exitUsage || !strings.Contains(stderr, "the certificate anna has the role viewer") {
		t.Errorf("a viewer lists tokens: exit %d\n%s", code, stderr)
	}
	strangerCert, strangerKey := issue(t, "anna", nil, nil, time.Hour)
	stranger := filepath.Join(dir, "stranger.pem")
	writePEM(t, stranger, strangerCert, strangerKey)
	if code, _, stderr := as(stranger, "job", "list"); code != exitUsage || !strings.Contains(stderr, "isn't an authority of this server's clients") {
		t.Errorf("a stranger's certificate: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := as(filepath.Join(dir, "gone.pem"), "job", "list"); code != exitUsage || !strings.Contains(stderr, "--client-cert names a file") {
		t.Errorf("a file that isn't there: exit %d\n%s", code, stderr)
	}

	c, err := client.New(client.Config{Server: r.url, CAFile: serverCA, CertFile: mine})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var me api.Caller
	const moment = 2 * time.Second
	renew(moment)
	if err := c.Get(t.Context(), "/whoami", nil, &me); err != nil || me.Name != "anna" {
		t.Fatalf("by a short certificate: %+v, %v", me, err)
	}
	eventually(t, "the certificate of a connection expires", func() bool {
		err := c.Get(t.Context(), "/whoami", nil, &me)
		return err != nil && strings.Contains(err.Error(), "expired")
	})
	renew(time.Hour)
	if err := c.Get(t.Context(), "/whoami", nil, &me); err != nil {
		t.Errorf("the renewed certificate isn't taken: %v", err)
	}

	nodeCert, nodeKey := issue(t, "node-1", caCert, caKey, time.Hour)
	nodeFile := filepath.Join(dir, "node.pem")
	writePEM(t, nodeFile, nodeCert, nodeKey)
	n := exec.Command(os.Args[0], "node", "--pool", "cpu", "--server", r.url, "--ca-file", serverCA, "--client-cert", nodeFile)
	n.Env = append(os.Environ(), asCommand+"=1")
	said := &logText{}
	n.Stderr = said
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = n.Process.Signal(syscall.SIGTERM)
		_ = n.Wait() // its status is the signal's
		if t.Failed() {
			t.Logf("the node:\n%s", said)
		}
	})
	eventually(t, "the node registers", func() bool {
		_, stdout, _ := r.run("node", "list", "-o", "json")
		return strings.Contains(stdout, `"~node-1.cpu-`)
	})
}

// issue makes a certificate for clients that is signed by an authority, or by itself as
// an authority.
func issue(t *testing.T, name string, by *x509.Certificate, with *ecdsa.PrivateKey, life time.Duration) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if by == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		by, with = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), with)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c, key
}

// writePEM writes a certificate and its key into one file, at once.
func writePEM(t *testing.T, file string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if key != nil {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// TestSignInWithOpenID: a person signs in at a real OpenID provider and sees the portal
// with the role that the verified address gives; the same answer of the provider doesn't
// work again; signing out ends the session; tokens work beside it.
func TestSignInWithOpenID(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	r := launch(t, "", "--sign-in-secret-file", secret)
	p := testkit.StartOpenID(t, r.url+"/sign-in/callback")
	if err := os.WriteFile(secret, []byte(p.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, yaml, _ := r.run("config", "show")
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	yaml += fmt.Sprintf("\naccess:\n  sign_in: {issuer: %q, client_id: %s, roles: [{value: '%s', role: viewer}]}\n", p.Issuer, p.ClientID, testkit.OpenIDEmail)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := r.run("apply", file); code != 0 {
		t.Fatalf("apply: exit %d\n%s", code, stderr)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var back string // the address by which the provider sent the browser back
	browser := &http.Client{Jar: jar, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), r.url+"/sign-in/callback") {
			back = req.URL.String()
		}
		return nil
	}}
	page := func(path string) (int, string) {
		t.Helper()
		resp, err := browser.Get(r.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	eventually(t, "the page for signing in names the provider", func() bool {
		code, text := page("/pools/cpu")
		return code == http.StatusUnauthorized && strings.Contains(text, `href="/sign-in/provider?next=%2Fpools%2Fcpu"`)
	})
	resp := p.SignIn(t, browser, r.url+"/sign-in/provider?next=%2Fpools%2Fcpu")
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), `<meta http-equiv="refresh" content="0; url=/pools/cpu">`) {
		t.Fatalf("back from the provider: %d, %v\n%s", resp.StatusCode, err, text)
	}
	if code, text := page("/pools/cpu"); code != http.StatusOK || !strings.Contains(text, testkit.OpenIDEmail+" (viewer)") {
		t.Errorf("signed in: %d\n%s", code, text)
	}
	if code, text := page(strings.TrimPrefix(back, r.url)); code == http.StatusOK || !strings.Contains(text, "begin to sign in") {
		t.Errorf("the same answer again: %d\n%s", code, text)
	}
	if resp, err := browser.Post(r.url+"/api/v1/jobs", "application/json", strings.NewReader("{}")); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a request that no page of this server made: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	out, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/sign-out", nil)
	if err != nil {
		t.Fatal(err)
	}
	out.Header.Set("Origin", r.url)
	if resp, err = browser.Do(out); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if code, _ := page("/pools/cpu"); code != http.StatusUnauthorized {
		t.Errorf("signed out: %d", code)
	}
	if code, _, stderr := r.run("job", "list"); code != 0 {
		t.Errorf("this user's commands: exit %d\n%s", code, stderr)
	}
}
