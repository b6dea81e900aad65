package config

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub/natshub"
)

// leastLog is the least size of a partition of the log that a limit may allow: messages have up to a
// megabyte, and a partition's readings go file by file.
const leastLog fleetscore.Size = 10_000_000

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
	}{{"retention.age", h.Retention.Age}, {"disorder", h.Disorder}, {"idle_after", h.IdleAfter}} {
		if d.v < 0 {
			r.at("hub."+d.name, "%s is negative; write 0 or more", d.v)
		}
	}
	if least := leastLog * fleetscore.Size(max(h.Partitions, 1)); h.Retention.Size != 0 && h.Retention.Size < least {
		r.at("hub.retention.size", "%s is too little for %s: write at least %s, or leave it out", h.Retention.Size, fleetscore.Counted(h.Partitions, "partition"), least)
	}
	if !slices.Contains([]string{"s", "ms", "us", "ns"}, h.TimeUnit) {
		r.at("hub.time_unit", "%q is unknown; write s, ms, us or ns", h.TimeUnit)
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
	r.judgeKafka(h)
	r.judgeFiles(h)
	r.judgeEventHubs(h.EventHubs)
	if h.NATS != nil {
		r.judgeNATS(h.NATS)
	}
	if h.Archive != nil {
		r.judgeArchive(*h.Archive)
	}
}

func (r *reader) judgeArchive(a fleetscore.ArchiveConfig) {
	if !goodName.MatchString(a.Namespace) {
		r.at("hub.archive.namespace", "%q: it must start with a lower-case letter and have only a-z, 0-9, - and _", a.Namespace)
	}
	if a.Every.D() < 10*time.Second || (24*time.Hour)%a.Every.D() != 0 {
		r.at("hub.archive.every", "%s must divide a day, and be 10s or more", a.Every)
	}
	if a.SizeMB < 1 || a.SizeMB > 1024 {
		r.at("hub.archive.size_mb", "%d is not possible; write 1 to 1024", a.SizeMB)
	}
	if a.Retention < 0 {
		r.at("hub.archive.retention", "%s is negative", a.Retention)
	}
}

func fillHub(h *fleetscore.HubConfig) {
	if len(h.Key) == 0 {
		h.Key = []string{"Device", "Tag"}
	}
	def(&h.Time, "TS")
	def(&h.TimeUnit, "ms")
	def(&h.Partitions, 1)
	def(&h.Retention.Age, fleetscore.Duration(7*24*time.Hour))
	def(&h.Disorder, fleetscore.Duration(5*time.Second))
	def(&h.IdleAfter, fleetscore.Duration(10*time.Second))
	h.Kafka = slices.Clone(h.Kafka)
	for i := range h.Kafka {
		k := &h.Kafka[i]
		def(&k.Group, "fleetscore")
		def(&k.Start, "earliest")
		def(&k.Format, "json")
		if k.SASL != nil {
			s := *k.SASL
			def(&s.Mechanism, "plain")
			k.SASL = &s
		}
	}
	if h.Archive != nil {
		a := *h.Archive
		def(&a.Namespace, "fleetscore")
		def(&a.Every, fleetscore.Duration(5*time.Minute))
		def(&a.SizeMB, 64)
		h.Archive = &a
	}
	if h.EventHubs != nil {
		e := *h.EventHubs
		def(&e.Name, "hub")
		e.Policies = slices.Clone(e.Policies)
		for i := range e.Policies {
			if len(e.Policies[i].Rights) == 0 {
				e.Policies[i].Rights = []string{"send"}
			}
		}
		h.EventHubs = &e
	}
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

// goodTopic is a name that topics and groups can have.
var goodTopic = pattern{regexp.MustCompile(`^[A-Za-z0-9._-]+$`), 249}

func (r *reader) judgeKafka(h fleetscore.HubConfig) {
	for i, k := range h.Kafka {
		at := func(key, format string, args ...any) { r.at(fmt.Sprintf("hub.kafka.%d.%s", i+1, key), format, args...) }
		if len(k.Brokers) == 0 {
			at("brokers", `no broker is named; write for example ["kafka-1:9092", "kafka-2:9092"]`)
		}
		for _, b := range k.Brokers {
			if _, _, err := net.SplitHostPort(b); err != nil {
				at("brokers", "%s is not host:port; write for example kafka-1:9092", b)
			}
		}
		if !goodTopic.MatchString(k.Topic) {
			at("topic", "%q is not the name of a topic: it has only letters, digits, -, _ and .", k.Topic)
		}
		if !goodTopic.MatchString(k.Group) {
			at("group", "%q must have only letters, digits, -, _ and .", k.Group)
		}
		for _, other := range h.Kafka[:i] {
			if other.Topic == k.Topic && other.Group == k.Group {
				at("group", "the topic %s is read twice with the group %s; write another group for one of them", k.Topic, k.Group)
			}
		}
		if k.Start != "earliest" && k.Start != "latest" {
			at("start", "%q is unknown; write earliest or latest", k.Start)
		}
		switch {
		case k.Format != "json" && k.Format != "csv":
			at("format", "%q is unknown; write json or csv", k.Format)
		case k.Format == "csv" && len(k.Columns) == 0:
			at("columns", "rows of CSV have no names; write the columns, for example [TS, Device, Tag, Value]")
		case k.Format == "json" && len(k.Columns) > 0:
			at("columns", "only CSV has columns by their order; leave them out, or write format: csv")
		}
		r.judgePair(fmt.Sprintf("hub.kafka.%d.", i+1), k.Certificate, k.Key)
		s := k.SASL
		if s == nil {
			continue
		}
		if !slices.Contains([]string{"plain", "scram-sha-256", "scram-sha-512"}, s.Mechanism) {
			at("sasl.mechanism", "%q is unknown; write plain, scram-sha-256 or scram-sha-512", s.Mechanism)
		}
		if s.User == "" || s.PasswordFile == "" {
			at("sasl", "write user and password_file")
		}
	}
}

// ownPaths begin addresses of the server that aren't those of a hub.
var ownPaths = []string{"api", "v2"}

func (r *reader) judgeEventHubs(e *fleetscore.EventHubsConfig) {
	if e == nil {
		return
	}
	if !goodTopic.MatchString(e.Name) || slices.Contains(ownPaths, strings.ToLower(e.Name)) {
		r.at("hub.event_hubs.name", "%q is not possible; write letters, digits, -, _ and ., and none of %s", e.Name, strings.Join(ownPaths, ", "))
	}
	for i, p := range e.Policies {
		at := fmt.Sprintf("hub.event_hubs.policies.%d.", i+1)
		if p.Name == "" || slices.ContainsFunc(e.Policies[:i], func(other fleetscore.PolicyConfig) bool { return other.Name == p.Name }) {
			r.at(at+"name", "the name %q is empty or is there twice", p.Name)
		}
		if p.KeyFile == "" {
			r.at(at+"key_file", "write the file that holds the key of the policy")
		}
		for _, right := range p.Rights {
			if !slices.Contains([]string{"send", "listen", "manage"}, right) {
				r.at(at+"rights", "%q is unknown; write send, listen or manage", right)
			}
		}
	}
}

// judgePair judges a certificate and its key.
func (r *reader) judgePair(under, certificate, key string) {
	if (certificate == "") != (key == "") {
		r.at(under+"key", "certificate and key belong together; name both files")
	}
}

// File is a file of the servers' machines that a configuration names.
type File struct {
	At   string // where it is named
	Path string
}

// Files are the files with passwords, keys and certificates that a hub's settings name.
func Files(h fleetscore.HubConfig) (out []File) {
	add := func(at, path string) {
		if path != "" {
			out = append(out, File{"hub." + at, path})
		}
	}
	for i, k := range h.Kafka {
		at := fmt.Sprintf("kafka.%d.", i+1)
		add(at+"ca", k.CA)
		add(at+"certificate", k.Certificate)
		add(at+"key", k.Key)
		if k.SASL != nil {
			add(at+"sasl.password_file", k.SASL.PasswordFile)
		}
	}
	if h.EventHubs != nil {
		for i, p := range h.EventHubs.Policies {
			at := fmt.Sprintf("event_hubs.policies.%d.", i+1)
			add(at+"key_file", p.KeyFile)
			add(at+"secondary_key_file", p.SecondaryKeyFile)
		}
	}
	if n := h.NATS; n != nil {
		add("nats.credentials", n.Credentials)
		add("nats.ca", n.CA)
		add("nats.certificate", n.Certificate)
		add("nats.key", n.Key)
	}
	return out
}

// judgeFiles judges the files that the hub names.
func (r *reader) judgeFiles(h fleetscore.HubConfig) {
	for _, f := range Files(h) {
		if !filepath.IsAbs(f.Path) {
			r.at(f.At, "%s is relative, but each server reads a file of its own machine; write an absolute path", f.Path)
		}
	}
}

// goodStream is a name that streams and subjects can begin with.
var goodStream = pattern{regexp.MustCompile(`^[A-Za-z0-9_-]*$`), 64}

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
	r.judgePair("hub.nats.", n.Certificate, n.Key)
}
