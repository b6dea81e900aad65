package config

import (
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

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
	if h.OwnKey != "" && !slices.Contains(h.Key, h.OwnKey) {
		r.at("hub.own_key", "%q is not a key column; write one of %s", h.OwnKey, strings.Join(h.Key, ", "))
	}
	if h.MQTT != nil {
		r.judgeMQTT(*h.MQTT, h)
	}
	if h.NATS != nil {
		r.judgeNATS(h.NATS)
	}
}

func fillHub(h *fleetscore.HubConfig) {
	if len(h.Key) == 0 {
		h.Key = []string{"Device", "Tag"}
	}
	def(&h.Time, "TS")
	def(&h.Partitions, 1)
	def(&h.Retention, fleetscore.Duration(7*24*time.Hour))
	def(&h.Disorder, fleetscore.Duration(5*time.Second))
	def(&h.IdleAfter, fleetscore.Duration(10*time.Second))
	if h.MQTT == nil {
		return
	}
	filled := *h.MQTT
	def(&filled.Listen, "127.0.0.1:1883")
	def(&filled.Topic, fleetscore.DefaultTopic(h.Key))
	h.MQTT = &filled
}

func (r *reader) judgeMQTT(m fleetscore.MQTTConfig, h fleetscore.HubConfig) {
	if _, port, err := net.SplitHostPort(m.Listen); err != nil {
		r.at("hub.mqtt.listen", "%s is not host:port; write for example 127.0.0.1:1883", m.Listen)
	} else if _, err := net.LookupPort("tcp", port); err != nil {
		r.at("hub.mqtt.listen", "%s: %q is not a port", m.Listen, port)
	}
	if _, err := fleetscore.ParseTopicForm(m.Topic, h.Key); err != nil {
		r.at("hub.mqtt.topic", "%v", err)
	}
	if m.Value != "" && (m.Value == h.Time || slices.Contains(h.Key, m.Value)) {
		r.at("hub.mqtt.value", "%s has another role; write the column of the measured value, such as Value", m.Value)
	}
	if m.Value != "" && !m.ArrivalTime {
		r.at("hub.mqtt.value", "a message that is a bare number holds no time; write arrival_time: true as well")
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
