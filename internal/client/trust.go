package client

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"

	"github.com/fleetscore/fleetscore"
)

// trust checks a server's certificate. The file with the trusted certificates is read
// at each new connection, so that a client goes on after the certificate changes.
type trust struct{ server *server }

func (t *trust) config() *tls.Config {
	// VerifyConnection checks as crypto/tls does, but with other trusted roots.
	return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: t.verify}
}

func (t *trust) verify(state tls.ConnectionState) error {
	s := t.server
	file, name := s.cfg.CAFile, s.cfg.ServerName
	if l, ok := s.local(); ok && file == "" {
		file = l.CAFile
		if name == "" {
			name = l.ServerName
		}
	}
	if name == "" {
		u, err := url.Parse(s.base)
		if err != nil {
			return err
		}
		name = u.Hostname()
	}
	if ip := net.ParseIP(name); ip != nil {
		name = "[" + ip.String() + "]" // the form of an address for package x509
	}
	opts := x509.VerifyOptions{DNSName: name, Intermediates: x509.NewCertPool()}
	if file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fleetscore.Errorf(fleetscore.Invalid, "read certificates to trust", file, "%w", err)
		}
		if opts.Roots, err = x509.SystemCertPool(); err != nil {
			opts.Roots = x509.NewCertPool()
		}
		if !opts.Roots.AppendCertsFromPEM(pem) {
			return fleetscore.Errorf(fleetscore.Invalid, "read certificates to trust", file, "the file holds no certificates in PEM")
		}
	}
	if len(state.PeerCertificates) == 0 {
		return fleetscore.Errorf(fleetscore.Invalid, "check certificate", name, "the server sent no certificate")
	}
	for _, i := range state.PeerCertificates[1:] {
		opts.Intermediates.AddCert(i)
	}
	_, err := state.PeerCertificates[0].Verify(opts)
	return err
}
