package access

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
)

// Certificate is a server's certificate with its key. When its files change, later
// connections use the new content.
type Certificate struct {
	certFile, keyFile string
	CAFile            string // the file by which clients of this machine trust the certificate
	log               *slog.Logger
	now               func() time.Time

	mu     sync.Mutex // guards what follows
	cert   *tls.Certificate
	state  string // of the files, when they were read
	looked time.Time
}

// OpenCertificate reads a certificate with its chain, and its key, from two files in
// PEM.
func OpenCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	var err error
	for _, f := range []*string{&certFile, &keyFile} {
		if *f, err = filepath.Abs(*f); err != nil {
			return nil, err
		}
	}
	c := &Certificate{certFile: certFile, keyFile: keyFile, CAFile: certFile, log: log, now: time.Now}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c, c.load()
}

// load reads the files, if they changed.
func (c *Certificate) load() error {
	state := fileState(c.certFile) + fileState(c.keyFile)
	if c.cert != nil && state == c.state {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fleetscore.Errorf(fleetscore.Invalid, "read certificate", c.certFile, "%w", err).
			WithHint("--tls-cert names a file with the certificate and its chain, --tls-key a file with its key, both in PEM")
	}
	c.cert, c.state = &cert, state
	return nil
}

// fileState identifies contents without reading them.
func fileState(name string) string {
	st, err := os.Stat(name)
	if err != nil {
		return err.Error()
	}
	return st.ModTime().String() + "/" + big.NewInt(st.Size()).String() + ";"
}

// lookEvery is the least time between two checks of the files.
const lookEvery = time.Second

// current returns the certificate of the files as they are now. If the files can't be
// read, for example because they are being replaced, the last certificate stays in
// use.
func (c *Certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		before := c.cert
		if err := c.load(); err != nil {
			c.log.Error("the changed certificate can't be used; the old one stays in use", "error", err)
		} else if c.cert != before {
			c.log.Info("the certificate changed", "file", c.certFile, "until", c.cert.Leaf.NotAfter)
		}
	}
	return c.cert
}

// Config is how a server speaks TLS. It speaks HTTP/1.1 only, so that the limits of
// connections and bodies apply to each request.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil }}
}

// Fingerprint is the SHA-256 of the certificate, as browsers show it.
func (c *Certificate) Fingerprint() string {
	s := sha256.Sum256(c.current().Certificate[0])
	text := strings.ToUpper(hex.EncodeToString(s[:]))
	var parts []string
	for i := 0; i < len(text); i += 2 {
		parts = append(parts, text[i:i+2])
	}
	return strings.Join(parts, ":")
}

// NameFor is the name that a client which connects to host must expect in the
// certificate; empty if this is host itself.
func (c *Certificate) NameFor(host string) string {
	leaf := c.current().Leaf
	switch {
	case leaf.VerifyHostname(host) == nil:
		return ""
	case len(leaf.DNSNames) > 0:
		return strings.Replace(leaf.DNSNames[0], "*", "server", 1)
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String()
	}
	return ""
}

// The files of a certificate that the server made itself. The authority's key is
// deleted as soon as it has signed, so that nobody can sign another certificate with
// it.
const (
	selfCA   = "tls-ca.pem"
	selfCert = "tls-cert.pem"
	selfKey  = "tls-key.pem"
)

// How long a certificate that the server made is valid (the longest time that
// browsers allow), and how long before its end a new one is made.
const (
	selfLife  = 825 * 24 * time.Hour
	selfRenew = 30 * 24 * time.Hour
)

// SelfSigned opens the certificate that the server made itself in a folder, and makes
// it if there is none or it ends soon. It is valid for all names and addresses of
// this machine, and for host.
func SelfSigned(dir, host string, log *slog.Logger) (*Certificate, error) {
	cert, key := filepath.Join(dir, selfCert), filepath.Join(dir, selfKey)
	c, err := OpenCertificate(cert, key, log)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil || time.Until(c.cert.Leaf.NotAfter) < selfRenew:
		if err := makeCertificate(dir, host, time.Now()); err != nil {
			return nil, err
		}
		if c, err = OpenCertificate(cert, key, log); err != nil {
			return nil, err
		}
	}
	if host != "" && c.cert.Leaf.VerifyHostname(host) != nil {
		return nil, fleetscore.Errorf(fleetscore.Conflict, "read certificate", cert, "the certificate isn't valid for %s", host).
			WithHint("remove the file, so that the server makes a new certificate; clients on other machines then need the new %s", selfCA)
	}
	c.CAFile = filepath.Join(dir, selfCA)
	return c, nil
}

// makeCertificate makes an authority and a certificate signed by it.
func makeCertificate(dir, host string, now time.Time) error {
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	machine, err := os.Hostname()
	if err != nil {
		machine = "localhost"
	}
	template := func(name string) *x509.Certificate {
		serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // it never fails
		return &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfLife),
			Subject: pkix.Name{CommonName: name, Organization: []string{"Fleetscore, made by the server itself"}}, BasicConstraintsValid: true}
	}
	authority := template("Fleetscore authority of " + machine)
	authority.IsCA, authority.MaxPathLenZero, authority.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf := template(machine)
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	addName(leaf, machine)
	addName(leaf, host)
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return fleetscore.Wrap("list addresses of this machine", "", err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
			leaf.IPAddresses = append(leaf.IPAddresses, n.IP)
		}
	}
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return fleetscore.Wrap("make certificate", dir, err)
	}
	signed, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), authorityKey)
	if err != nil {
		return fleetscore.Wrap("make certificate", dir, err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fleetscore.Wrap("make certificate", dir, err)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return fleetscore.Wrap("make certificate", dir, err)
	}
	for _, f := range []struct {
		name, kind string
		der        []byte
	}{{selfKey, "PRIVATE KEY", secret}, {selfCA, "CERTIFICATE", root}, {selfCert, "CERTIFICATE", signed}} {
		var text bytes.Buffer
		_ = pem.Encode(&text, &pem.Block{Type: f.kind, Bytes: f.der}) // a buffer takes everything
		if err := durable.WriteFile(filepath.Join(dir, f.name), text.Bytes(), 0o600); err != nil {
			return fleetscore.Wrap("make certificate", filepath.Join(dir, f.name), err)
		}
	}
	return nil
}

// addName adds a name or address that isn't there yet.
func addName(c *x509.Certificate, name string) {
	if name == "" || c.VerifyHostname(name) == nil {
		return
	}
	if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = append(c.IPAddresses, ip)
	} else {
		c.DNSNames = append(c.DNSNames, name)
	}
}
