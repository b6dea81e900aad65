package config

import (
	"path/filepath"
	"regexp"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub/natshub"
)

func (r *reader) judgeHub(h fleetscore.HubConfig) {
	for i, k := range h.Key {
		if k == "" || slices.Contains(h.Key[:i], k) || k == h.Time {
			r.at("hub.key", "key columns must differ from each other and from the time column; %q doesn't", k)
		}
	}
	if h.Partitions < 1 || h.Partitions > fleetscore.Shards {
		r.at("hub.partitions", "%d partitions are not possible; write 1 to %d", h.Partitions, fleetscore.Shards)
	}
	for _, d := range []struct {
		name string
		v    fleetscore.Duration
	}{{"retention", h.Retention}, {"disorder", h.Disorder}, {"idle_after", h.IdleAfter}} {
		if d.v < 0 {
			r.at("hub."+d.name, "%s is negative; write 0 or more", d.v)
		}
	}
	if h.BacklogMB < 0 {
		r.at("hub.backlog_mb", "%d is negative", h.BacklogMB)
	}
	if h.NATS != nil {
		r.judgeNATS(h.NATS)
	}
}

// goodStream is a name that streams and subjects can begin with.
var goodStream = regexp.MustCompile(`^[A-Za-z0-9_-]{0,64}$`)

func (r *reader) judgeNATS(n *fleetscore.NATSConfig) {
	if err := natshub.CheckURL(n.URL); err != nil {
		r.at("hub.nats.url", "%v", err)
	}
	if !goodStream.MatchString(n.Name) {
		r.at("hub.nats.name", "%q must have only letters, digits, - and _, at most 64", n.Name)
	}
	if n.Replicas < 0 || n.Replicas > 5 {
		r.at("hub.nats.replicas", "%d replicas are not possible; write 1 to 5", n.Replicas)
	}
	if n.MaxMB < 0 {
		r.at("hub.nats.max_mb", "%d is negative", n.MaxMB)
	}
	if (n.Certificate == "") != (n.Key == "") {
		r.at("hub.nats.key", "certificate and key belong together; name both files")
	}
	for _, f := range []struct{ name, file string }{{"credentials", n.Credentials}, {"ca", n.CA}, {"certificate", n.Certificate}, {"key", n.Key}} {
		if f.file != "" && !filepath.IsAbs(f.file) {
			r.at("hub.nats."+f.name, "%s is relative, but each server reads a file of its own machine; write an absolute path", f.file)
		}
	}
}
