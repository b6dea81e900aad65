package access

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

// authority issues certificates in tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key}
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) pem() []byte {
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}); err != nil {
		a.t.Fatal(err)
	}
	return b.Bytes()
}

// issue makes a client certificate for a DNS name; change may alter it first.
func (a *authority) issue(name string, change func(c *x509.Certificate)) *tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "cn-" + name}, DNSNames: []string{name}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestClientCertificates: what a certificate opens, and what its holder is told if it
// opens nothing: another authority's, an expired one, one for servers, one that no entry
// names. A cookie or a token goes before the certificate.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t, "plant"), newAuthority(t, "stranger")
	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(ca.pem())
	c := &clock{at: noon}
	authorities, err := OpenAuthorities(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	authorities.now = c.now
	d, _, _, l := world(t, Config{Authorities: authorities})
	d.now = c.now
	entries := []fleetscore.CertificateRole{{Name: "gateway-*", Role: fleetscore.RoleDevice}, {Name: "spiffe://plant/*", Role: fleetscore.RoleOperator}, {Name: "cn-*", Role: fleetscore.RoleViewer}, {Name: "lab*", Role: fleetscore.RoleNode}}
	if _, err := l.PutConfig(t.Context(), noon, "a", fleetscore.Config{Access: fleetscore.AccessConfig{Certificates: entries}}); err != nil {
		t.Fatal(err)
	}
	if err := d.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	token := create(t, d, fleetscore.RoleAdministrator, "anna", time.Time{})
	server := httptest.NewUnstartedServer(muxOf(d))
	own := ca.issue("server", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	server.TLS = authorities.Ask(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*own}})
	server.StartTLS()
	defer server.Close()
	ask := func(cert *tls.Certificate, pattern, token string) (int, string, string) {
		t.Helper()
		tr := server.Client().Transport.(*http.Transport).Clone()
		defer tr.CloseIdleConnections()
		tr.TLSClientConfig.InsecureSkipVerify = true // the test is about the other side's certificate
		if cert != nil {
			tr.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		}
		method, path, ok := strings.Cut(pattern, " ")
		if !ok {
			method, path = http.MethodPost, strings.ReplaceAll(pattern, "{hub}", "hub")
		}
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := (&http.Client{Transport: tr}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Caller"), string(said)
	}
	send, read, work := routes[fleetscore.RoleDevice], routes[fleetscore.RoleViewer], routes[fleetscore.RoleNode]
	gateway := ca.issue("gateway-7", nil)
	expired := ca.issue("gateway-7", func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Minute) })
	soon := ca.issue("gateway-7", func(c *x509.Certificate) { c.NotAfter = noon.Add(time.Minute) })
	early := ca.issue("gateway-7", func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Minute) })
	serving := ca.issue("gateway-7", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	unnamed := ca.issue("gateway-7", func(c *x509.Certificate) { c.DNSNames = nil })
	lab := ca.issue("lab-3.example.com", nil)
	for _, tt := range []struct {
		name  string
		cert  *tls.Certificate
		route string
		token string
		want  int
		says  string // the caller's name, or a part of the refusal
	}{
		{"its role", gateway, send, "", 200, "gateway-7"},
		{"its role alone", gateway, read, "", 403, "the certificate gateway-7 has the role device"},
		{"none", nil, read, "", 401, "no token was sent"},
		{"another authority's", other.issue("gateway-7", nil), send, "", 401, `"CN=stranger", which isn't an authority`},
		{"expired", expired, send, "", 401, "expired at 2026-11-23T11:59:00Z"},
		{"not yet", early, send, "", 401, "isn't valid before"},
		{"for servers", serving, send, "", 401, "lacks clientAuth"},
		{"no entry", ca.issue("press", nil), send, "", 401, "no entry of access.certificates matches its names: press"},
		{"common name only without others", unnamed, read, "", 200, "cn-gateway-7"},
		{"a node", lab, work, "", 200, "lab-3.example.com"},
		{"a token goes first", gateway, read, token, 200, "anna"},
		{"a token beside a wrong certificate", expired, read, token, 200, "anna"},
		{"a wrong token", gateway, send, "fst_x_y", 401, "the token is wrong"},
		{"ends soon", soon, send, "", 200, "gateway-7"},
	} {
		if code, caller, said := ask(tt.cert, tt.route, tt.token); code != tt.want || !strings.Contains(caller+said, tt.says) {
			t.Errorf("%s: %d as %q: %s; want %d, %s", tt.name, code, caller, said, tt.want, tt.says)
		}
	}
	c.add(2 * time.Minute)
	if code, _, said := ask(soon, send, ""); code != 401 || !strings.Contains(said, "expired") {
		t.Errorf("after its end: %d %s", code, said)
	}
	write(other.pem())
	c.add(time.Second)
	if code, _, said := ask(gateway, send, ""); code != 401 || !strings.Contains(said, "isn't an authority") {
		t.Errorf("after its authority was taken out: %d %s", code, said)
	}
	c.add(time.Minute)
	write([]byte("broken"))
	if code, _, _ := ask(other.issue("gateway-8", func(c *x509.Certificate) { c.NotAfter = noon.Add(time.Hour) }), send, ""); code != 200 {
		t.Errorf("the last good authorities aren't in use any more: %d", code)
	}

	d.cfg.NeedCert = true
	gateway = other.issue("gateway-9", nil)
	if code, _, said := ask(nil, read, token); code != 401 || !strings.Contains(said, "needs a client certificate besides the token") {
		t.Errorf("a token alone, where a certificate is needed: %d %s", code, said)
	}
	if code, caller, _ := ask(gateway, read, token); code != 200 || caller != "anna" {
		t.Errorf("a token beside a certificate: %d as %s", code, caller)
	}
	if code, caller, _ := ask(gateway, send, ""); code != 200 || caller != "gateway-9" {
		t.Errorf("a certificate alone: %d as %s", code, caller)
	}
}

// TestCertificatesOwnTheirNodes: nodes of a certificate have names that no token's nodes
// and no other certificate's nodes can have; a session by a certificate ends with it and
// with the entries.
func TestCertificatesOwnTheirNodes(t *testing.T) {
	t.Parallel()
	of := func(name string) Caller { return Caller{Role: fleetscore.RoleNode, Name: name, via: viaCertificate} }
	lab := of("lab-3.example.com")
	mine := fleetscore.NodeID(lab.NodePrefix() + "cpu-1")
	if !lab.Owns(mine) {
		t.Errorf("%s isn't its own", mine)
	}
	token := Caller{Role: fleetscore.RoleNode, Name: "lab-3", via: viaToken}
	for _, other := range []Caller{of("lab-3"), of("lab-3.example"), of("example.com"), token, {Role: fleetscore.RoleNode, Name: Pool}} {
		if other.Owns(mine) || lab.Owns(fleetscore.NodeID(other.NodePrefix()+"cpu-1")) {
			t.Errorf("%s and %s own the same nodes", other.Name, lab.Name)
		}
	}
	for _, odd := range []string{"", "a~b", "a/b", strings.Repeat("x", 65)} {
		if c := of(odd); c.Owns("~.x") || c.Owns("x") || c.NodePrefix() != "" {
			t.Errorf("%q owns nodes", odd)
		}
	}
	d, _, c, _ := world(t, Config{})
	caller := Caller{Role: fleetscore.RoleViewer, Name: "anna", via: viaCertificate, under: d.settings.Load().certificates, ends: noon.Add(time.Hour)}
	if !d.valid(caller) {
		t.Error("not valid")
	}
	d.set(fleetscore.AccessConfig{Certificates: []fleetscore.CertificateRole{{Name: "*", Role: fleetscore.RoleDevice}}})
	if d.valid(caller) {
		t.Error("it outlives the entry that gave its role")
	}
	d.set(fleetscore.AccessConfig{})
	if c.add(time.Hour); d.valid(caller) {
		t.Error("it outlives its certificate")
	}
}
