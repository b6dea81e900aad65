package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/fleetscore/fleetscore"
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
	return nil
}
