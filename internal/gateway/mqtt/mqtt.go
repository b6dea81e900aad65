// Package mqtt takes readings by MQTT 3.1.1 and 5 and hands them to the gateway.
//
// The protocol is mochi-mqtt's: it reads and writes packets and keeps to the
// specification's rules. This package decides who may connect, what a message means, and
// when it is acknowledged: a PUBACK or PUBREC goes out after the hub's sync, in the order of
// the messages. A connection's next messages are read while earlier ones are being
// stored, so that they share syncs; once maxInFlight of them wait, or all connections'
// messages take maxMemory, no more is read, which slows the senders.
//
// If the hub can't store a message, the connection ends, because MQTT 3.1.1 has no other
// way to say so; clients connect again and send again what wasn't acknowledged. A message
// that holds no reading is answered with the reason in MQTT 5, and acknowledged in 3.1.1,
// because a client would send it for ever; it is counted and logged.
//
// Nobody can subscribe, nothing is retained, and sessions end with their connections.
// docs/mqtt.md describes all of it. Run owns all goroutines.
package mqtt

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
)

// Limits of what clients can take.
const (
	maxPacket      = 256 << 10        // bytes of a message with its topic
	maxConnect     = 16 << 10         // bytes of the first packet, which anybody can send
	connectTimeout = 10 * time.Second // for the first packet to arrive
	maxInFlight    = 256              // messages of a connection that wait to be stored
	maxMemory      = 64 << 20         // bytes of messages of all connections that wait
	lastWords      = time.Second      // for a client to learn why its connection ends
	messageBytes   = 1 << 10          // about what a message takes besides its text
	listenEvery    = 5 * time.Second  // between two tries to listen
)

const tooLarge = "the message is larger than 256 KiB"

// Config says where readings come in and what they look like.
type Config struct {
	MQTT fleetscore.MQTTConfig // with Listen and Topic
	Hub  fleetscore.HubConfig  // Key and OwnKey are used
}

// Sender is the client of a connection.
type Sender interface {
	String() string // names the client in messages
	Device() string // its name, if it is a device
}

// Client is what a client shows when it connects.
type Client struct {
	Remote string
	TLS    *tls.ConnectionState // nil without TLS
	Token  string               // its password
}

// Deps is what a Server works with.
type Deps struct {
	Gateway *gateway.Gateway
	// Admit says who a client is, or why it may not send readings.
	Admit func(Client) (Sender, error)
	// Valid reports whether a client that was admitted may still send readings; nil means
	// for ever.
	Valid   func(Sender) bool
	TLS     *tls.Config                     // nil means without TLS
	Bound   func(net.Listener) net.Listener // bounds connections; nil means that they aren't
	Hold    func(net.Conn)                  // says that a connection of Bound's listener belongs to a client that was admitted
	Reject  func(...ledger.Rejected)        // keeps messages that weren't taken, or not whole, and returns once they are kept; nil keeps none
	Report  func(why string)                // why nothing is taken; empty if all is well
	Log     *slog.Logger                    // nil discards
	Metrics prometheus.Registerer           // nil means none
}

// Server takes readings by MQTT.
type Server struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	form    Form
	broker  *broker.Server
	memory  *semaphore.Weighted
	metrics *metrics
	told    teller

	mu    sync.Mutex // guards what follows
	open  map[*conn]struct{}
	ended bool
}

// New builds a server; it listens once Run runs.
func New(cfg Config, deps Deps) (*Server, error) {
	s := &Server{cfg: cfg, deps: deps, log: deps.Log, memory: semaphore.NewWeighted(maxMemory), open: map[*conn]struct{}{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.form, err = NewForm(cfg); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(deps.Metrics, s.connections); err != nil {
		return nil, err
	}
	limits := broker.NewDefaultServerCapabilities()
	limits.MaximumPacketSize = maxPacket
	limits.MaximumClientWritesPending = 1 // of messages to subscribers, of which there are none
	limits.TopicAliasMaximum = 0
	limits.RetainAvailable, limits.SharedSubAvailable, limits.WildcardSubAvailable, limits.SubIDAvailable = 0, 0, 0, 0
	limits.Compatibilities.NoInheritedPropertiesOnAck = true
	// Its log has a line for each fault of a client, which clients could fill a disk with.
	s.broker = broker.New(&broker.Options{Capabilities: limits, Logger: slog.New(slog.DiscardHandler)})
	return s, s.broker.AddHook(&hook{server: s}, nil)
}

// Run listens and takes readings until ctx ends. While the address can't be listened on,
// it reports why, and tries again.
func (s *Server) Run(ctx context.Context) error {
	defer s.report("")
	trouble := new(lifecycle.Outages).Trouble(s.log)
	for told := false; ; {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", s.cfg.MQTT.Listen)
		if err == nil {
			s.report("")
			if !told {
				told = true
				s.log.Info("readings are taken by MQTT", "address", l.Addr().String(), "tls", s.deps.TLS != nil, "topic", s.cfg.MQTT.Topic)
			}
			err = s.serve(ctx, l, &trouble)
		}
		if ctx.Err() != nil {
			return nil
		}
		s.report("can't listen on " + s.cfg.MQTT.Listen + ": " + err.Error())
		trouble.Failed(slog.LevelError, "readings can't be taken by MQTT, which is tried again", err, "address", s.cfg.MQTT.Listen)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenEvery):
		}
	}
}

func (s *Server) report(why string) {
	if s.deps.Report != nil {
		s.deps.Report(why)
	}
}

// serve takes connections until ctx ends or the listener fails, and ends them all. The first connection ends an
// outage: to listen isn't enough, because no connection may come of it.
func (s *Server) serve(ctx context.Context, l net.Listener, trouble *lifecycle.Trouble) error {
	if s.deps.Bound != nil {
		l = s.deps.Bound(l)
	}
	s.mu.Lock()
	s.ended = false
	s.mu.Unlock()
	var all sync.WaitGroup
	defer all.Wait()
	defer s.endAll()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	for {
		raw, err := l.Accept()
		var passing net.Error
		if errors.As(err, &passing) && passing.Timeout() {
			continue
		}
		if err != nil {
			return err
		}
		trouble.Works("readings are taken by MQTT again", "address", s.cfg.MQTT.Listen)
		all.Go(func() { s.connection(raw) })
	}
}

// malformed reports whether a panic comes from decoding a packet: some decoders of the broker read
// beyond the end of a packet that is cut short, such as a SUBSCRIBE without options.
func malformed(panicked any, stack []byte) bool {
	_, ok := panicked.(runtime.Error)
	return ok && bytes.Contains(stack, []byte("/packets.(*Packet)."))
}

// connection serves one connection.
func (s *Server) connection(raw net.Conn) {
	c := &conn{Conn: raw, raw: raw, server: s, waiting: make(chan *message, maxInFlight)}
	defer c.end()
	if !s.add(c) {
		return
	}
	defer s.remove(c)
	_ = c.SetDeadline(time.Now().Add(connectTimeout)) // the broker sets it anew once the client is known
	if s.deps.TLS != nil {
		secure := tls.Server(raw, s.deps.TLS)
		if secure.Handshake() != nil {
			s.metrics.refused.Inc()
			return
		}
		c.Conn = secure
	}
	var answers sync.WaitGroup
	answers.Go(c.answer)
	defer answers.Wait()
	defer close(c.waiting)
	err := s.establish(c)
	if c.sender == nil {
		s.metrics.refused.Inc()
	}
	if errors.Is(err, packets.ErrPacketTooLarge) && c.sender != nil { // counted before the client knows, as all that is rejected
		s.reject(c, "", nil, tooLarge)
		s.deps.Gateway.Reject(gateway.WayMQTT)
	}
	c.lastWord(err, time.Now().Add(lastWords))
	c.end() // before answers have ended: nobody waits for them
}

// establish lets the broker serve a connection and says why it ended. A packet that the broker's code can't stand ends
// its own connection alone.
func (s *Server) establish(c *conn) (err error) {
	defer func() {
		switch r := recover(); {
		case r == nil:
		case malformed(r, debug.Stack()):
			err = packets.ErrMalformedPacket
			s.log.Warn("a malformed packet of a client ended its connection", "remote", c.raw.RemoteAddr().String(), "why", r)
		default:
			err = packets.ErrUnspecifiedError
			s.log.Error("a defect in MQTT ended a connection", "remote", c.raw.RemoteAddr().String(), "defect", r)
		}
	}()
	return s.broker.EstablishConnection("mqtt", c)
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.open[c] = struct{}{}
	}
	return !s.ended
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (s *Server) connections() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(len(s.open))
}

// endAll ends all connections. Clients of MQTT 5 are told why.
func (s *Server) endAll() {
	s.mu.Lock()
	s.ended = true
	for c := range s.open {
		_ = c.raw.SetDeadline(time.Now().Add(time.Second)) // a client that reads nothing can't hold this up
	}
	s.mu.Unlock()
	for _, cl := range s.broker.Clients.GetAll() {
		_ = s.broker.DisconnectClient(cl, packets.ErrServerShuttingDown) // it is gone, or learns it when it connects again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Close()
	}
}

// tell writes to the log, at most once a minute for each message.
func (s *Server) tell(message string, args ...any) {
	if more, ok := s.told.turn(message, time.Now()); ok {
		s.log.Warn(message, append(args, "more_before", more)...)
	}
}

// reject notes a message that wasn't taken, or not whole, and keeps it.
func (s *Server) reject(c *conn, topic string, payload []byte, why string) {
	if s.deps.Reject != nil && payload != nil {
		owner := ""
		if s.form.own >= 0 {
			owner = c.sender.Device()
		}
		s.deps.Reject(ledger.Rejected{Source: fleetscore.SourceMQTT, Topic: topic, From: fmt.Sprint(c.sender), Owner: owner, Reason: why, Text: payload})
	}
	s.tell("a message by MQTT was rejected", "from", c.sender.String(), "topic", topic, "bytes", len(payload), "reason", why)
}
