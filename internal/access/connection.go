package access

import (
	"crypto/tls"
	"net/http"
	"net/url"

	"github.com/fleetscore/fleetscore"
)

// Connection is a connection of a protocol other than HTTP, and what its client shows.
type Connection struct {
	Protocol string // such as mqtt
	Remote   string // the client's address
	TLS      *tls.ConnectionState
	Token    string // empty means that the client sends none
}

// Admit judges a connection by the rules that requests are judged by: tokens, client
// certificates, servers that are open, and addresses that send many wrong tokens.
func (d *Control) Admit(c Connection, need fleetscore.Role) (Caller, *Refusal) {
	r := &http.Request{Method: c.Protocol, URL: &url.URL{}, Header: http.Header{}, RemoteAddr: c.Remote, TLS: c.TLS}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	return d.judge(r, need)
}

// Valid reports whether a caller that was admitted would be admitted again.
func (d *Control) Valid(c Caller) bool { return d.valid(c) }

// Device is the name of the device that the caller is; empty if the caller is no device.
func (c Caller) Device() string {
	switch {
	case c.Role != fleetscore.RoleDevice:
		return ""
	case c.via == viaPolicy:
		return c.publisher
	}
	return c.Name
}
