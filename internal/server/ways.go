package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/gateway/kafka"
	"github.com/fleetscore/fleetscore/internal/gateway/mqtt"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/tail"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/store"
)

// checkMQTT refuses an address that would give strangers access, by the rules of the
// address for HTTP.
func (s *Server) checkMQTT(h fleetscore.HubConfig) error {
	const op = "listen for MQTT"
	if h.MQTT == nil {
		return nil
	}
	host, _, err := net.SplitHostPort(h.MQTT.Listen)
	switch {
	case err != nil:
		return fleetscore.Errorf(fleetscore.Invalid, op, h.MQTT.Listen, "not host:port").WithHint("write for example 127.0.0.1:1883")
	case isLoopback(host):
		return nil
	case s.cfg.Open:
		return fleetscore.Errorf(fleetscore.Invalid, op, h.MQTT.Listen, "this server was started with --open, so everybody on the network could send readings").
			WithHint("let hub.mqtt.listen be an address of this machine only, such as 127.0.0.1:1883, or start the server without --open")
	case !s.tls() && !s.cfg.InsecureHTTP:
		return fleetscore.Errorf(fleetscore.Invalid, op, h.MQTT.Listen, "beyond this machine tokens would travel in plain text").
			WithHint("start the server with --tls-cert and --tls-key, or --tls-self-signed for a first try, which MQTT uses too; behind a proxy that speaks TLS, with --insecure-http")
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sources are the ways by which readings come in.
func sources(h fleetscore.HubConfig) []fleetscore.Source {
	if h.MQTT == nil {
		return []fleetscore.Source{fleetscore.SourceHTTP}
	}
	return []fleetscore.Source{fleetscore.SourceHTTP, fleetscore.SourceMQTT}
}

// mqtt is the service that takes readings by MQTT for a gateway.
func (s *Server) mqtt(h fleetscore.HubConfig, g *gateway.Gateway, metrics prometheus.Registerer) (lifecycle.Service, error) {
	report := func(why string) { s.health.Report("mqtt", why) }
	if err := s.checkMQTT(h); err != nil { // it was applied when the server had other flags
		return lifecycle.Service{Name: "mqtt", Run: func(ctx context.Context) error {
			report(err.Error())
			defer report("")
			<-ctx.Done()
			return nil
		}}, nil
	}
	deps := mqtt.Deps{Gateway: g, Log: s.log, Metrics: metrics, Report: report, Reject: s.streams.keeper.Keep, Bound: s.conns.Listen, Hold: s.conns.Hold,
		Admit: func(c mqtt.Client) (mqtt.Sender, error) {
			caller, why := s.control.Admit(access.Connection{Protocol: "MQTT", Remote: c.Remote, TLS: c.TLS, Token: c.Token}, fleetscore.RoleDevice)
			if why != nil {
				return nil, why
			}
			return caller, nil
		},
		Valid: func(who mqtt.Sender) bool {
			caller, ok := who.(access.Caller)
			return ok && s.control.Valid(caller)
		}}
	if s.cert != nil {
		deps.TLS = s.cert.Config()
		deps.TLS.NextProtos = []string{"mqtt"}
		if s.authorities != nil {
			deps.TLS = s.authorities.Ask(deps.TLS)
		}
	}
	m, err := mqtt.New(mqtt.Config{MQTT: *h.MQTT, Hub: h}, deps)
	if err != nil {
		return lifecycle.Service{}, err
	}
	return lifecycle.Service{Name: "mqtt", Run: m.Run}, nil
}

// checkKafka refuses topics where several servers share the work: each would read them.
func (s *Server) checkKafka(h fleetscore.HubConfig) error {
	if len(h.Kafka) == 0 || !s.cfg.Shared {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Invalid, "read Kafka topics", h.Kafka[0].Topic, "servers that share the work (--shared) can't read topics yet").
		WithHint("read the topic with a server of its own, or take hub.kafka out")
}

// kafka are the services that read the topics for a gateway.
func (s *streams) kafka(h fleetscore.HubConfig, g *gateway.Gateway, metrics prometheus.Registerer) (services []lifecycle.Service, err error) {
	if s.server.checkKafka(h) != nil {
		return nil, nil // the server has other flags than when the configuration was applied; check says so at the next one
	}
	var topics []*kafka.Reader
	for i, k := range h.Kafka {
		if s.server.checkFiles(h, fmt.Sprintf("hub.kafka.%d.", i+1)) != nil {
			continue // tellFiles told it
		}
		name := "kafka topic " + k.Topic
		if len(h.Kafka) > 1 {
			name += " of group " + k.Group
		}
		r, err := kafka.New(kafka.Config{Kafka: k, Hub: h}, kafka.Deps{Gateway: g, Reject: s.keeper.Keep, Now: s.server.clock.Now, Log: s.server.log, Metrics: metrics,
			Report: func(why string) { s.server.health.Report(name, why) }})
		if err != nil {
			return nil, err
		}
		topics = append(topics, r)
		services = append(services, lifecycle.Service{Name: name, Run: r.Run})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topics = topics
	return services, nil
}

// ways is what comes in.
func (s *streams) ways(ctx context.Context) api.Hub {
	out := api.Hub{Stats: s.stats(), Kafka: []kafka.Topic{}, Partitions: []api.HubPartition{}, Readers: []api.HubReader{}}
	s.mu.Lock()
	for _, t := range s.topics {
		out.Kafka = append(out.Kafka, t.Status())
	}
	h, kept := s.hub, s.archive
	out.Log.Age, out.Log.LimitBytes = s.cfg.Retention.Age, int64(s.cfg.Retention.Size)
	if out.Problem = s.why; s.gateway != nil {
		out.Problem = s.gateway.Refuses()
	}
	s.mu.Unlock()
	if h == nil {
		return out
	}
	log, err := h.Stats(ctx)
	if err != nil {
		return out // health says why
	}
	for _, p := range log {
		part := api.HubPartition{Partition: p.Partition, First: p.First, Last: p.Last, Messages: p.Messages, SizeBytes: p.SizeBytes, OverdueBytes: p.OverdueBytes}
		if p.Oldest > 0 {
			at := p.Oldest.Time()
			if part.Oldest = &at; out.Log.Oldest == nil || at.Before(*out.Log.Oldest) {
				out.Log.Oldest = &at
			}
		}
		out.Partitions = append(out.Partitions, part)
		out.Log.Messages, out.Log.SizeBytes, out.Log.OverdueBytes = out.Log.Messages+p.Messages, out.Log.SizeBytes+p.SizeBytes, out.Log.OverdueBytes+p.OverdueBytes
	}
	behind := func(name string, positions []uint64) api.HubReader {
		r := api.HubReader{Name: name, Positions: positions}
		for i, p := range log {
			if i < len(positions) && positions[i] < p.Last {
				r.Lag += p.Last - max(positions[i], p.First-1)
			}
		}
		return r
	}
	for _, q := range s.status() {
		positions, until := make([]uint64, len(q.Partitions)), fleetscore.Micros(math.MaxInt64)
		for i, p := range q.Partitions {
			positions[i], until = p.Taken, min(until, p.CompleteUntil)
		}
		r := behind("query "+q.Query, positions)
		if r.Problem = q.Problem; len(positions) > 0 && until > 0 {
			at := until.Time()
			r.Until = &at
		}
		out.Readers = append(out.Readers, r)
	}
	if kept != nil {
		positions := make([]uint64, len(log))
		for i := range positions {
			positions[i] = max(kept.Hold(i), 1) - 1
		}
		out.Readers = append(out.Readers, behind("archive", positions))
	}
	return out
}

// scope remembers what was registered, so that services that are rebuilt can
// register anew.
type scope struct {
	prometheus.Registerer
	collectors []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (s *scope) Register(c prometheus.Collector) error {
	err := s.Registerer.Register(c)
	if err == nil {
		s.collectors = append(s.collectors, c)
	}
	return err
}

func (s *scope) unregister() {
	for _, c := range s.collectors {
		s.Unregister(c)
	}
}

// serve hands requests to the gateway, if there is one yet.
func (s *streams) serve(hand func(*gateway.Gateway, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		g, why := s.gateway, s.why
		s.mu.Unlock()
		if g == nil {
			p := gateway.Problem{Kind: fleetscore.Unavailable.String(), Op: "take readings", Subject: "hub",
				Message: "no configuration is in force yet, so it isn't known how readings look", Hint: "run fleetscore apply fleet.yaml"}
			if why != "" {
				p.Message, p.Hint = why, "send the readings again later"
			}
			w.Header().Set("Retry-After", "1")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(p) // the client went away
			return
		}
		hand(g, w, r)
	}
}

// refuseInflux answers a sender of line protocol that isn't let in.
func (s *streams) refuseInflux(w http.ResponseWriter, _ *http.Request, why *access.Refusal) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(why.Status)
	text := why.Message + " (" + why.Hint + ")"
	_ = json.NewEncoder(w).Encode(map[string]string{"code": "unauthorized", "message": text, "error": text}) // the client went away
}

// eventHubs takes what senders of Event Hubs send, and hands all other requests on. Their
// addresses begin with any name, so that a mux can't tell them from those of other rooms.
func (s *Server) eventHubs(others http.Handler) (http.Handler, error) {
	mux := s.control.NewMux(func(w http.ResponseWriter, _ *http.Request, why *access.Refusal) {
		gateway.RefuseEventHubs(w, why.Status, why.Message+" ("+why.Hint+")")
	})
	take := s.streams.serve((*gateway.Gateway).ServeEventHubs)
	for _, pattern := range []string{"POST /{hub}/messages", "POST /{hub}/partitions/{partition}/messages", "POST /{hub}/publishers/{publisher}/messages"} {
		mux.Handle(pattern, take)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isEventHubs(r) {
			mux.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	}), mux.Err()
}

// isEventHubs reports whether a request's address is one to which senders of Event Hubs send.
func isEventHubs(r *http.Request) bool {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	n := len(parts)
	if r.Method != http.MethodPost || n != 2 && n != 4 || parts[n-1] != "messages" || parts[0] == "api" || parts[0] == "v2" {
		return false
	}
	return n == 2 || parts[1] == "partitions" || parts[1] == "publishers"
}

// keep begins to keep rejected messages. The function that it returns ends that, after all ways by which readings come have
// ended.
func (s *streams) keep(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- s.keeper.Run(ctx) }()
	return func() {
		cancel()
		<-done // it has no error
	}
}

// Redrive hands a rejected message over again, by the configuration that is in force now. Why says why
// it is still rejected.
func (s *streams) Redrive(ctx context.Context, r ledger.Rejected) (why string, err error) {
	const op = "hand over again"
	s.mu.Lock()
	g, h := s.gateway, s.cfg
	s.mu.Unlock()
	if g == nil {
		return "", fleetscore.Errorf(fleetscore.Unavailable, op, r.ID, "no readings can be taken at present").WithHint("try again in a moment")
	}
	m, why := messageOf(r, h)
	if why != "" {
		return why, nil
	}
	m.Arrived, m.Way = r.Arrived, gateway.WayAgain
	p, err := g.Begin(fleetscore.SourceHTTP, m)
	if err != nil {
		return "", err
	}
	out, err := p.Wait()
	switch {
	case err != nil:
		return "", err
	case out.Rejected > 0:
		return out.Reasons[0].String(), nil
	case out.Accepted == 0:
		return "the message holds no reading", nil
	}
	_, err = s.server.Ledger.RemoveRejected(ctx, r)
	return "", err
}

// lateBatch is about how much text of late readings is handed over at once.
const lateBatch = 1 << 20

// RedriveLate hands the readings of a file of late readings over again, as if they had just come, and then deletes the
// file. Why says why some of them are rejected; the file stays then.
func (s *streams) RedriveLate(ctx context.Context, file fleetscore.BlobName) (n int64, why string, err error) {
	const op = "hand over again"
	s.mu.Lock()
	g, h := s.gateway, s.cfg
	s.mu.Unlock()
	if g == nil {
		return 0, "", fleetscore.Errorf(fleetscore.Unavailable, op, string(file), "no readings can be taken at present").WithHint("try again in a moment")
	}
	data, err := store.ReadAll(ctx, s.server.store, file)
	if err != nil {
		return 0, "", err
	}
	var text []byte
	deliver := func() error {
		p, err := g.Begin(fleetscore.SourceHTTP, gateway.Message{Format: gateway.NDJSON, Body: text, Way: gateway.WayAgain})
		if err != nil {
			return err
		}
		out, err := p.Wait()
		if n += int64(out.Accepted); out.Rejected > 0 && why == "" {
			why = out.Reasons[0].String()
		}
		text = text[:0]
		return err
	}
	for line := range bytes.Lines(data) {
		reading, err := lateLine(line, h)
		if err != nil {
			return n, "", fleetscore.Errorf(fleetscore.Corrupt, op, string(file), "%w", err)
		}
		if text = append(append(text, reading...), '\n'); len(text) >= lateBatch {
			if err := deliver(); err != nil {
				return n, "", err
			}
		}
	}
	if len(text) > 0 {
		if err := deliver(); err != nil {
			return n, "", err
		}
	}
	if why != "" {
		return n, why, nil
	}
	return n, "", s.server.store.Delete(ctx, file)
}

// lateLine makes a line of a file of late readings what a device would send.
func lateLine(line []byte, h fleetscore.HubConfig) ([]byte, error) {
	var l struct {
		Time   fleetscore.Micros          `json:"time_us"`
		Key    []string                   `json:"key"`
		ID     string                     `json:"id"`
		Values map[string]json.RawMessage `json:"values"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return nil, err
	}
	if len(l.Key) != len(h.Key) {
		return nil, fmt.Errorf("a key has %s, and the key columns are %s", fleetscore.Counted(len(l.Key), "value"), strings.Join(h.Key, ", "))
	}
	out := map[string]any{}
	for name, v := range l.Values {
		out[name] = v
	}
	for i, name := range h.Key {
		out[name] = l.Key[i]
	}
	if l.ID != "" {
		out["_id"] = l.ID
	}
	out[h.Time] = l.Time.Time().Format("2006-01-02T15:04:05.000000Z07:00")
	return json.Marshal(out)
}

// messageOf is what the gateway takes of a rejected message, or says why it takes nothing.
func messageOf(r ledger.Rejected, h fleetscore.HubConfig) (m gateway.Message, why string) {
	if r.Text == nil {
		return m, "the message was too long to be kept"
	}
	switch r.Source {
	case fleetscore.SourceMQTT:
		if h.MQTT == nil {
			return m, "readings aren't taken by MQTT any more"
		}
		form, err := mqtt.NewForm(mqtt.Config{MQTT: *h.MQTT, Hub: h})
		if err != nil {
			return m, err.Error()
		}
		m, _, why = form.Message(r.Topic, r.Text, r.Owner)
		return m, why
	case fleetscore.SourceKafka:
		for _, k := range h.Kafka {
			if k.Topic == r.Topic {
				var l gateway.Lines
				kafka.Translate(&l, r.Text, k, h)
				return l.Message(), ""
			}
		}
		return m, "the topic " + r.Topic + " isn't read any more"
	}
	return m, fmt.Sprintf("the way %q is unknown", r.Source)
}

// tail reads readings of the log.
func (s *streams) tail(ctx context.Context, q tail.Query, fn func(tail.Reading) error) error {
	h, err := s.open()
	if err != nil {
		return err
	}
	return tail.Read(ctx, h, q, fn)
}

// keys reads what the log says of keys, for one viewer after the other, because it needs memory for each key.
func (s *streams) keys(ctx context.Context, q tail.Query, fn func(tail.Key) error) error {
	select {
	case s.listing <- struct{}{}:
		defer func() { <-s.listing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	h, err := s.open()
	if err != nil {
		return err
	}
	return tail.Keys(ctx, h, q, s.server.clock.Now(), fn)
}

// open is the log.
func (s *streams) open() (hub.Hub, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hub == nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "read readings", "hub", "the hub isn't open").WithHint("GET /health says why")
	}
	return s.hub, nil
}
