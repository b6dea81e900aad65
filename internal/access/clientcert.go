package access

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Authorities issue the client certificates that a server accepts. When their file
// changes, the new content counts from the next request on.
type Authorities struct {
	file string
	log  *slog.Logger
	now  func() time.Time

	mu     sync.Mutex // guards what follows
	pool   *x509.CertPool
	state  string // of the file, when it was read
	looked time.Time
	judged map[sum]verdict // of certificates that were checked with this pool
}

// verdict is what a check of a certificate said: it is good until a time, or why not.
type verdict struct {
	until time.Time
	err   error
}

// maxJudged bounds how many certificates' verdicts are remembered.
const maxJudged = 4096

// OpenAuthorities reads the certificates of authorities from a file in PEM.
func OpenAuthorities(file string, log *slog.Logger) (*Authorities, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	a := &Authorities{file: file, log: log, now: time.Now}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	return a, a.load()
}

func (a *Authorities) load() error {
	state := fileState(a.file)
	if a.pool != nil && state == a.state {
		return nil
	}
	text, err := os.ReadFile(a.file)
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(text) {
		err = errors.New("the file holds no certificates in PEM")
	}
	if err != nil {
		return fleetscore.Errorf(fleetscore.Invalid, "read authorities of clients", a.file, "%w", err).
			WithHint("--tls-client-ca names a file with the certificates of the authorities that issue client certificates, in PEM")
	}
	a.pool, a.state, a.judged = pool, state, map[sum]verdict{}
	return nil
}

// current returns the authorities of the file as it is now. If it can't be read, the
// last ones stay in use.
func (a *Authorities) current() *x509.CertPool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := a.now(); now.Sub(a.looked) >= lookEvery {
		a.looked = now
		before := a.pool
		if err := a.load(); err != nil {
			a.log.Error("the changed authorities of clients can't be used; the old ones stay in use", "error", err)
		} else if a.pool != before {
			a.log.Info("the authorities of clients changed", "file", a.file)
		}
	}
	return a.pool
}

// verify checks a certificate that a client presented, and until when it is good.
func (a *Authorities) verify(chain []*x509.Certificate, now time.Time) (until time.Time, err error) {
	pool, key := a.current(), chainSum(chain)
	a.mu.Lock()
	v, known := a.judged[key]
	known = known && a.pool == pool
	a.mu.Unlock()
	if known && (v.err != nil || now.Before(v.until)) {
		return v.until, v.err
	}
	leaf := chain[0]
	opts := x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	found, err := leaf.Verify(opts)
	switch {
	case err != nil && now.Before(leaf.NotBefore), err != nil && now.After(leaf.NotAfter):
		return time.Time{}, err // a matter of time alone isn't remembered
	case err == nil:
		for _, c := range found[0] {
			if v.until = leaf.NotAfter; c.NotAfter.Before(v.until) {
				v.until = c.NotAfter
			}
		}
	}
	v.err = err
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.judged) >= maxJudged {
		clear(a.judged)
	}
	if a.pool == pool {
		a.judged[key] = v
	}
	return v.until, err
}

// chainSum identifies what a client presented.
func chainSum(chain []*x509.Certificate) (out sum) {
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw)
	}
	h.Sum(out[:0])
	return out
}

// Ask makes a server ask its clients for certificates. What they present is checked with
// each request, so that a client learns from an ordinary answer what is wrong with it,
// and so that a certificate which expires meanwhile is noticed.
func (a *Authorities) Ask(c *tls.Config) *tls.Config {
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		each := c.Clone()
		each.GetConfigForClient = nil
		each.ClientAuth = tls.RequestClientCert
		each.ClientCAs = a.current() // clients that hold several certificates choose by it
		return each, nil
	}
	return c
}

// namesOf are the names that a certificate carries: its alternative names, or its common
// name if it has none.
func namesOf(c *x509.Certificate) []string {
	var names []string
	for _, n := range c.DNSNames {
		names = append(names, strings.ToLower(n))
	}
	names = append(names, c.EmailAddresses...)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	if len(names) == 0 && c.Subject.CommonName != "" {
		names = []string{c.Subject.CommonName}
	}
	return names
}

// presented is the certificate of a request that was checked.
type presented struct {
	leaf  *x509.Certificate
	until time.Time
}

// certificateOp is the Op of refusals because of a client certificate.
const certificateOp = "check client certificate"

// Certificate reports whether the reason is a client certificate.
func (r *Refusal) Certificate() bool { return r.Op == certificateOp }

const certificateHint = "present a certificate that an authority of the server's --tls-client-ca issued for clients; commands read it from the files that --client-cert and --client-key name"

// certificate checks the certificate that came with a request; nil if none came.
func (d *Control) certificate(r *http.Request) (*presented, *Refusal) {
	if d.cfg.Authorities == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, nil
	}
	chain := r.TLS.PeerCertificates
	leaf := chain[0]
	until, err := d.cfg.Authorities.verify(chain, d.now())
	if err == nil {
		return &presented{leaf, until}, nil
	}
	why := &Refusal{Status: http.StatusUnauthorized, Op: certificateOp, Subject: shownName(leaf), Hint: certificateHint}
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch now := d.now(); {
	case now.After(leaf.NotAfter):
		why.Message = "the certificate expired at " + leaf.NotAfter.UTC().Format(time.RFC3339)
		why.Hint = "renew it; commands, nodes and clients that are running read the new files by themselves"
	case now.Before(leaf.NotBefore):
		why.Message = "the certificate isn't valid before " + leaf.NotBefore.UTC().Format(time.RFC3339)
		why.Hint = "check the clocks of the client, of the authority and of the server"
	case errors.As(err, &unknown):
		why.Message = "it was issued by " + fmt.Sprintf("%q", leaf.Issuer.String()) + ", which isn't an authority of this server's clients"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		why.Message = "the certificate isn't made for clients: its extended key usage lacks clientAuth"
	default:
		why.Message = err.Error()
	}
	return nil, why
}

// shownName names a certificate in messages.
func shownName(c *x509.Certificate) string {
	if names := namesOf(c); len(names) > 0 {
		return names[0]
	}
	return "without a name"
}

// byCertificate is the caller of a certificate: the first entry of access.certificates
// that one of its names matches says the role.
func (d *Control) byCertificate(p *presented) (Caller, *Refusal) {
	names, s := namesOf(p.leaf), d.settings.Load()
	for _, entry := range s.Certificates {
		for _, name := range names {
			if ok, err := path.Match(entry.Name, name); !ok || err != nil { // config checked the pattern
				continue
			}
			c := Caller{Role: entry.Role, Name: name, via: viaCertificate, under: s.certificates, ends: p.until}
			if c.Role == fleetscore.RoleNode && c.owner() == "" {
				return Caller{}, &Refusal{Status: http.StatusUnauthorized, Op: certificateOp, Subject: name,
					Message: "a node's name begins with the name in its certificate, so that this must have 1 to 64 letters, digits, dots, - and _"}
			}
			return c, nil
		}
	}
	return Caller{}, &Refusal{Status: http.StatusUnauthorized, Op: certificateOp, Subject: shownName(p.leaf),
		Message: "the certificate is good, but no entry of access.certificates matches its names: " + strings.Join(names, ", "),
		Hint:    "an administrator adds an entry to fleet.yaml, such as {name: " + shownName(p.leaf) + ", role: viewer}; or send a token"}
}
