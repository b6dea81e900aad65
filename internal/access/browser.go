package access

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// checkHost refuses requests to a loopback listener that carry another host name.
// This is the sign of a page whose own name points to this machine (DNS rebinding).
func (d *Control) checkHost(r *http.Request) *Refusal {
	if !d.cfg.Loopback || isLoopback(r.Host) {
		return nil
	}
	return &Refusal{Status: http.StatusMisdirectedRequest, Op: "check host", Subject: r.Host,
		Message: "the server listens on this machine only and doesn't answer under another name",
		Hint:    "use 127.0.0.1 or localhost with the server's port"}
}

func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// foreign finds requests that a page of another site made and that change something.
// Programs don't send the headers that browsers send.
var foreign = http.NewCrossOriginProtection()

func checkOrigin(r *http.Request) *Refusal {
	if foreign.Check(r) == nil {
		return nil
	}
	return foreignPage(r)
}

func foreignPage(r *http.Request) *Refusal {
	return &Refusal{Status: http.StatusForbidden, Op: "check origin", Subject: r.Header.Get("Origin"),
		Message: "a page of another site asked for a change", Hint: "send it from this server's own pages, or by a program with a token"}
}

// sameOrigin checks requests with a cookie more strictly, because browsers send
// cookies by themselves: a request that changes something must say that a page of
// this server sent it.
func sameOrigin(r *http.Request) *Refusal {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		return nil
	}
	if o, err := url.Parse(r.Header.Get("Origin")); err == nil && o.Host != "" && strings.EqualFold(o.Host, r.Host) && r.Header.Get("Sec-Fetch-Site") == "" {
		return nil
	}
	return foreignPage(r)
}

// harden sets the headers that allow a browser only to show an answer. Handlers of
// pages allow more where they need it.
func harden(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}
