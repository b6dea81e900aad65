// Package sas reads and checks shared access signatures, the tokens of Event Hubs and
// Service Bus. A sender makes such a token itself: it signs the address that it sends to, and a
// time of expiry, with the key of a policy. The form is that of Microsoft's "Authenticate access to Event
// Hubs resources using shared access signatures":
//
//	SharedAccessSignature sr=<address>&sig=<signature>&se=<expiry>&skn=<policy>
//
// The package knows no policies and reads no files.
package sas

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Scheme begins the header of a request that carries a token.
const Scheme = "SharedAccessSignature"

// Token is what a token says. Its signature isn't checked yet.
type Token struct {
	Policy    string    // the name of the policy whose key signed it
	Expires   time.Time // it is valid before this time
	host      string    // of the address that it is for, in lower case, without a port
	path      string    // of that address, in lower case, without slashes at its ends
	signed    string    // the text that was signed
	signature []byte
}

// maxBytes bounds the text of a token.
const maxBytes = 4 << 10

// Parse reads the text of a token.
func Parse(text string) (Token, error) {
	rest, ok := strings.CutPrefix(text, Scheme+" ")
	if !ok || len(text) > maxBytes {
		return Token{}, fmt.Errorf("it must begin with %s and have at most %d bytes", Scheme, maxBytes)
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimSpace(rest), "&") {
		name, value, _ := strings.Cut(part, "=")
		if _, twice := fields[name]; twice {
			return Token{}, fmt.Errorf("the field %.16q is there twice", name)
		}
		fields[name] = value
	}
	for _, name := range []string{"sr", "sig", "se", "skn"} {
		if fields[name] == "" {
			return Token{}, fmt.Errorf("the field %s is missing", name)
		}
	}
	t := Token{signed: fields["sr"] + "\n" + fields["se"]}
	expires, err := strconv.ParseInt(fields["se"], 10, 64)
	if err != nil || expires < 0 || expires > 1<<40 {
		return Token{}, fmt.Errorf("se is not a number of seconds since 1970")
	}
	t.Expires = time.Unix(expires, 0).UTC()
	if t.Policy, err = url.QueryUnescape(fields["skn"]); err != nil {
		return Token{}, fmt.Errorf("skn is not encoded for a URL")
	}
	signature, err := url.PathUnescape(fields["sig"]) // a plus sign belongs to base64
	if err == nil {
		t.signature, err = base64.StdEncoding.DecodeString(signature)
	}
	if err != nil {
		return Token{}, fmt.Errorf("sig is not base64 that is encoded for a URL")
	}
	if t.host, t.path, err = address(fields["sr"]); err != nil {
		return Token{}, err
	}
	return t, nil
}

// address reads the field sr: an address with any scheme, or with none.
func address(encoded string) (host, path string, err error) {
	text, err := url.QueryUnescape(encoded)
	if err != nil {
		return "", "", fmt.Errorf("sr is not encoded for a URL")
	}
	if _, after, ok := strings.Cut(text, "://"); ok {
		text = after
	}
	host, path, _ = strings.Cut(text, "/")
	path, _, _ = strings.Cut(path, "?") // some senders sign it too
	if host == "" || strings.ContainsAny(host, "?#") {
		return "", "", fmt.Errorf("sr is not an address such as https://host/hub")
	}
	return hostOf(host), strings.ToLower(strings.Trim(path, "/")), nil
}

// hostOf is a host in lower case, without a port.
func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

// Signed reports whether the token was signed with a key.
func (t Token) Signed(key string) bool {
	return key != "" && hmac.Equal(t.signature, sign(t.signed, key))
}

func sign(text, key string) []byte {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(text))
	return m.Sum(nil)
}

// Covers reports whether the token is for a request: its address must be that of the
// request, or one above it. The host is the one that the request was sent to, or one of
// the other names of the service.
func (t Token) Covers(host, path string, names ...string) bool {
	known := t.host == hostOf(host)
	for _, n := range names {
		known = known || t.host == hostOf(n)
	}
	path = strings.ToLower(strings.Trim(path, "/"))
	return known && (t.path == "" || path == t.path || strings.HasPrefix(path, t.path+"/"))
}

// Sign makes the text of a token for an address.
func Sign(resource, policy, key string, expires time.Time) string {
	sr, se := url.QueryEscape(resource), strconv.FormatInt(expires.Unix(), 10)
	sig := base64.StdEncoding.EncodeToString(sign(sr+"\n"+se, key))
	return Scheme + " sr=" + sr + "&sig=" + url.QueryEscape(sig) + "&se=" + se + "&skn=" + url.QueryEscape(policy)
}
