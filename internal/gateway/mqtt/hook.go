package mqtt

import (
	"context"
	"fmt"
	"slices"
	"strings"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/gateway"
)

// hook is what the broker asks while it works on a client's packets. It is called in the
// goroutine that reads from the client.
type hook struct {
	broker.HookBase
	server *Server
}

// ID names the hook.
func (h *hook) ID() string { return "fleetscore" }

// Provides lists what the broker asks here.
func (h *hook) Provides(what byte) bool {
	switch what {
	case broker.OnConnect, broker.OnConnectAuthenticate, broker.OnACLCheck, broker.OnPacketRead, broker.OnPacketEncode, broker.OnPacketSent, broker.OnPublish:
		return true
	}
	return false
}

// OnConnect makes the session end with the connection. A last will has no receivers.
func (h *hook) OnConnect(cl *broker.Client, _ packets.Packet) error {
	cl.Properties.Clean = true
	cl.Properties.Props.SessionExpiryInterval = 0
	cl.Properties.Will = broker.Will{}
	return nil
}

// OnConnectAuthenticate admits clients. The name of the caller becomes a part of the
// client's identifier, so that nobody can end the session of another caller by using its
// identifier.
func (h *hook) OnConnectAuthenticate(cl *broker.Client, pk packets.Packet) bool {
	s := h.server
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return false
	}
	who := Client{Remote: c.raw.RemoteAddr().String(), Token: string(pk.Connect.Password)}
	if t, ok := c.Conn.(secured); ok {
		state := t.ConnectionState()
		who.TLS = &state
	}
	sender, err := s.deps.Admit(who)
	if err != nil {
		s.tell("an MQTT client was refused", "remote", who.Remote, "error", err)
		return false
	}
	c.sender = sender
	cl.ID = sender.String() + "/" + cl.ID
	if s.deps.Hold != nil {
		s.deps.Hold(c.raw)
	}
	return true
}

// OnACLCheck refuses subscriptions. Topics of messages are judged by OnPublish.
func (h *hook) OnACLCheck(_ *broker.Client, _ string, write bool) bool { return write }

// OnPacketRead makes sure that OnPublish sees all messages: the broker drops those to
// topics of its own without a word.
func (h *hook) OnPacketRead(_ *broker.Client, pk packets.Packet) (packets.Packet, error) {
	if pk.FixedHeader.Type == packets.Publish && strings.HasPrefix(pk.TopicName, "$") {
		pk.TopicName = "/" + pk.TopicName // no form of topics begins with an empty level
	}
	return pk, nil
}

// OnPacketEncode tells clients of MQTT 5 what isn't offered. It also lets a client end a
// message of QoS 2 that was stored over an earlier connection, perhaps before the server
// started again: a client releases a message only after its PUBREC, which is sent after the sync.
func (h *hook) OnPacketEncode(_ *broker.Client, pk packets.Packet) packets.Packet {
	if pk.FixedHeader.Type == packets.Connack && pk.ReasonCode == packets.CodeSuccess.Code {
		p := &pk.Properties
		p.MaximumPacketSize = maxPacket
		p.RetainAvailable, p.RetainAvailableFlag = 0, true
		p.WildcardSubAvailable, p.WildcardSubAvailableFlag = 0, true
		p.SharedSubAvailable, p.SharedSubAvailableFlag = 0, true
		p.SubIDAvailable, p.SubIDAvailableFlag = 0, true
		p.SessionExpiryInterval, p.SessionExpiryIntervalFlag = 0, true
	}
	if pk.FixedHeader.Type == packets.Pubcomp && pk.ReasonCode == packets.ErrPacketIdentifierNotFound.Code {
		pk.ReasonCode, pk.Properties.ReasonString = packets.CodeSuccess.Code, ""
	}
	return pk
}

// OnPacketSent notes what a client was told of its connection.
func (h *hook) OnPacketSent(cl *broker.Client, pk packets.Packet, _ []byte) {
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.sent(cl, pk)
	}
}

// OnPublish takes a message. The broker does nothing more about it, whatever the verdict:
// conn.answer acknowledges it.
func (h *hook) OnPublish(cl *broker.Client, pk packets.Packet) (packets.Packet, error) {
	s := h.server
	c, ok := cl.Net.Conn.(*conn)
	if !ok || c.sender == nil || s.deps.Valid != nil && !s.deps.Valid(c.sender) {
		_ = s.broker.DisconnectClient(cl, packets.ErrNotAuthorized) // the token was removed or has expired
		return pk, packets.ErrRejectPacket
	}
	m := &message{client: cl, qos: pk.FixedHeader.Qos, id: pk.PacketID, topic: pk.TopicName, payload: pk.Payload}
	if strings.HasPrefix(m.topic, "/$") { // by OnPacketRead
		m.topic = m.topic[1:]
	}
	if pk.FixedHeader.Retain && cl.Properties.ProtocolVersion == 5 {
		s.deps.Gateway.Reject(gateway.WayMQTT)
		s.reject(c, m.topic, m.payload, "the message is to be retained, which this server doesn't do")
		_ = s.broker.DisconnectClient(cl, packets.ErrRetainNotSupported) // as the specification says
		return pk, packets.ErrRejectPacket
	}
	s.begin(c, m, pk.TopicName)
	c.waiting <- m // answer empties it, until this connection's goroutine ends
	return pk, packets.ErrRejectPacket
}

// begin judges a message by its topic and hands it to the gateway.
func (s *Server) begin(c *conn, m *message, name string) {
	owner := ""
	if s.form.own >= 0 {
		owner = c.sender.Device()
	}
	msg, code, why := s.form.Message(name, m.payload, owner)
	if why != "" {
		if code.Code == packets.ErrNotAuthorized.Code {
			why = c.sender.String() + " " + why
		}
		m.code, m.why = code, why
		s.deps.Gateway.Reject(gateway.WayMQTT)
		return
	}
	_ = s.memory.Acquire(context.Background(), m.size()) // what is waited for ends within the time limit of an append
	if m.pending, m.err = s.deps.Gateway.Begin(fleetscore.SourceMQTT, msg); m.pending == nil {
		s.memory.Release(m.size())
	}
}

// Form says what a message means.
type Form struct {
	cfg   Config
	topic fleetscore.TopicForm
	own   int // the key column that must hold a device's name; below 0 for none
}

// NewForm reads a form.
func NewForm(cfg Config) (Form, error) {
	topic, err := fleetscore.ParseTopicForm(cfg.MQTT.Topic, cfg.Hub.Key)
	own := -1
	if cfg.Hub.OwnKey != "" {
		own = slices.Index(cfg.Hub.Key, cfg.Hub.OwnKey)
	}
	return Form{cfg, topic, own}, err
}

// Message is what the gateway takes of a message; owner is the only device whose readings it may hold, empty for
// any. Why says what is wrong with the topic.
func (f Form) Message(topic string, payload []byte, owner string) (m gateway.Message, code packets.Code, why string) {
	keys, why := f.keys(topic)
	switch {
	case why != "":
		return m, packets.ErrTopicNameInvalid, why
	case owner != "" && keys[f.own] != "" && keys[f.own] != owner:
		return m, packets.ErrNotAuthorized, "may only send its own readings"
	}
	return gateway.Message{Format: gateway.JSON, Body: payload, Keys: keys, Value: f.cfg.MQTT.Value, ArrivalTime: f.cfg.MQTT.ArrivalTime, Owner: owner}, code, ""
}

// keys reads the values of the key columns from a topic, or says what is wrong with it.
func (f Form) keys(name string) (keys []string, why string) {
	keys, ok := f.topic.Match(name)
	if !ok {
		return nil, fmt.Sprintf("the topic doesn't have the form %s", f.topic)
	}
	for i, k := range keys {
		if k == "" {
			continue
		}
		if why := gateway.KeyText([]byte(k)); why != "" {
			return nil, f.cfg.Hub.Key[i] + " in the topic: " + why
		}
	}
	return keys, ""
}
