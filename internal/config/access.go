package config

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

func fillAccess(a *fleetscore.AccessConfig) {
	def(&a.Sessions.Idle, fleetscore.Duration(12*time.Hour))
	def(&a.Sessions.Longest, fleetscore.Duration(7*24*time.Hour))
	if s := &a.SignIn; s.Issuer != "" {
		def(&s.Claim, "email")
		if len(s.Scopes) == 0 {
			s.Scopes = []string{"email", "profile"}
		}
	}
}

// The bounds of sessions. A session's last use is known to other servers within a few
// minutes only.
const (
	leastSession = 5 * time.Minute
	mostSession  = 90 * 24 * time.Hour
)

func (r *reader) judgeAccess(a fleetscore.AccessConfig) {
	if a.URL != "" {
		if u, why := webAddress(a.URL); why != "" {
			r.at("access.url", "%s", why)
		} else if strings.Trim(u.Path, "/") != "" {
			r.at("access.url", "%s: the portal is at the top of its address; leave %s out", a.URL, u.Path)
		}
	}
	for _, d := range []struct {
		name string
		v    fleetscore.Duration
	}{{"idle", a.Sessions.Idle}, {"longest", a.Sessions.Longest}} {
		if d.v.D() < leastSession || d.v.D() > mostSession {
			r.at("access.sessions."+d.name, "%s is not possible; write %s to %s", d.v, fleetscore.Duration(leastSession), fleetscore.Duration(mostSession))
		}
	}
	for i, c := range a.Certificates {
		r.judgeGrant(fmt.Sprintf("access.certificates.%d", i+1), "name", c.Name, c.Role, fleetscore.Roles)
	}
	r.judgeSignIn(a.SignIn)
}

// people are the roles that a person may have who signs in.
var people = []fleetscore.Role{fleetscore.RoleViewer, fleetscore.RoleOperator, fleetscore.RoleAdministrator}

func (r *reader) judgeSignIn(s fleetscore.SignInConfig) {
	const at = "access.sign_in"
	if s.Issuer == "" {
		if s.ClientID != "" || s.Claim != "" || len(s.Scopes)+len(s.Roles) > 0 {
			r.at(at, "issuer is missing: the URL of the OpenID provider")
		}
		return
	}
	switch u, why := webAddress(s.Issuer); {
	case why != "":
		r.at(at+".issuer", "%s", why)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		r.at(at+".issuer", "%s: everybody on the network could change what the provider says; write its https:// address", s.Issuer)
	}
	if s.ClientID == "" {
		r.at(at, "client_id is missing: the name by which the provider knows this server")
	}
	if len(s.Roles) == 0 {
		r.at(at, "roles is missing: without it nobody who signs in has a role; for example [{value: \"*@example.com\", role: viewer}]")
	}
	for i, c := range s.Roles {
		r.judgeGrant(fmt.Sprintf("%s.roles.%d", at, i+1), "value", c.Value, c.Role, people)
	}
}

// judgeGrant checks an entry that gives a role to those who match a pattern.
func (r *reader) judgeGrant(at, key, pattern string, role fleetscore.Role, roles []fleetscore.Role) {
	if _, err := path.Match(pattern, ""); pattern == "" || err != nil {
		r.at(at, "%s %q is not a pattern; write a name, in which * stands for any characters but /", key, pattern)
	}
	var words []string
	for _, possible := range roles {
		if role == possible {
			return
		}
		words = append(words, string(possible))
	}
	r.at(at, "role %q is not possible here; write %s", role, strings.Join(words, ", "))
}

// webAddress reads an address of a web server; why says what is wrong with it.
func webAddress(text string) (u *url.URL, why string) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Sprintf("%s is not an address such as https://fleet.example.com", text)
	}
	return u, ""
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
