package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access/sas"
)

// settings are the parts of the configuration in force that concern access.
type settings struct {
	fleetscore.AccessConfig
	certificates string // identifies the entries that give roles to certificates
	signIn       string // identifies the provider and the entries that give roles to people
}

// digest identifies a value.
func digest(v any) string {
	b, _ := json.Marshal(v) // a part of the configuration, which was written as JSON before
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:16])
}

// set puts settings into force.
func (d *Control) set(c fleetscore.AccessConfig) {
	if c.Sessions.Idle == 0 {
		c.Sessions.Idle = fleetscore.Duration(sessionIdle)
	}
	if c.Sessions.Longest == 0 {
		c.Sessions.Longest = fleetscore.Duration(sessionLife)
	}
	s := &settings{AccessConfig: c, certificates: digest(c.Certificates), signIn: digest(c.SignIn)}
	if before := d.settings.Swap(s); before != nil && before.signIn != s.signIn {
		d.log.Info("how people sign in changed: those who signed in the old way sign in again", "issuer", c.SignIn.Issuer)
	}
}

// readSettings reads the configuration in force.
func (d *Control) readSettings(ctx context.Context) error {
	cfg, _, _, err := d.store.Config(ctx)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return err
	}
	d.set(cfg.Access)
	d.eventHubs.Store(cfg.Hub.EventHubs)
	return nil
}

// eventHubsRoutes begins the patterns of the routes that take shared access signatures.
const eventHubsRoutes = "POST /{hub}/"

// byPolicy finds the caller of a request with a shared access signature. The refusals have the
// words of Event Hubs, so that people find what its documentation says about them.
func (d *Control) byPolicy(r *http.Request, text string) (Caller, *Refusal) {
	wrong := func(message string) *Refusal {
		why := d.wrong(r, message)
		if why.Hint == tokenHint {
			why.Hint = "sign the address of the hub with the key of a policy of hub.event_hubs in fleet.yaml"
		}
		return why
	}
	token, err := sas.Parse(text)
	cfg := d.eventHubs.Load()
	if err != nil {
		return Caller{}, wrong("MalformedToken: the token of the header Authorization is malformed: " + err.Error())
	}
	if cfg == nil || !strings.HasPrefix(r.Pattern, eventHubsRoutes) {
		return Caller{}, wrong("InvalidAudience: shared access signatures are taken for /HUB/messages only, if hub.event_hubs names policies")
	}
	at := slices.IndexFunc(cfg.Policies, func(p fleetscore.PolicyConfig) bool { return p.Name == token.Policy })
	signed := false
	if at >= 0 {
		for _, file := range []string{cfg.Policies[at].KeyFile, cfg.Policies[at].SecondaryKeyFile} {
			if file == "" {
				continue
			}
			var key []byte
			err := d.mayRead(file)
			if err == nil {
				key, err = os.ReadFile(file) // each time, so that a new key needs no restart
			}
			if err != nil {
				d.log.Error("the key of a shared access policy can't be read", "policy", token.Policy, "error", err)
				return Caller{}, &Refusal{Status: http.StatusServiceUnavailable, Op: "authenticate", Subject: token.Policy,
					Message: "the key of the policy can't be read by this server", Hint: "the server's log says why"}
			}
			signed = signed || token.Signed(strings.TrimSpace(string(key)))
		}
	}
	switch now := d.now(); {
	case !signed:
		return Caller{}, wrong("InvalidSignature: the token has an invalid signature")
	case !now.Before(token.Expires):
		return Caller{}, wrong(fmt.Sprintf("ExpiredToken: the token expired at %s; this server's time is %s", token.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339)))
	case !token.Covers(r.Host, r.URL.Path, cfg.Hosts...):
		return Caller{}, wrong("InvalidAudience: the token is for another address")
	case !slices.Contains(cfg.Policies[at].Rights, "send") && !slices.Contains(cfg.Policies[at].Rights, "manage"):
		return Caller{}, &Refusal{Status: http.StatusUnauthorized, Op: "check right", Subject: token.Policy,
			Message: "Unauthorized access. 'Send' claim(s) are required to perform this operation", Hint: "use a policy with the right send"}
	}
	return Caller{Role: fleetscore.RoleDevice, Name: token.Policy, via: viaPolicy, publisher: r.PathValue("publisher")}, nil
}
