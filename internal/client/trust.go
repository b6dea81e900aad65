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
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: t.verify}
	if t.server.cfg.CertFile != "" {
		c.GetClientCertificate = t.present
	}
	return c
}

// present reads the client's certificate at each new connection. It is presented
// whatever authorities the server names, so that the server can say what is wrong.
func (t *trust) present(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	cert, key := t.server.cfg.CertFile, t.server.cfg.KeyFile
	if key == "" {
		key = cert
	}
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "read client certificate", cert, "%w", err).
			WithHint("--client-cert names a file with the certificate and its chain, --client-key a file with its key, both in PEM")
	}
	return &c, nil
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
