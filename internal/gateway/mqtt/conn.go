package mqtt

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/fleetscore/fleetscore/internal/gateway"
)

// conn is one connection. The broker reads from it in the goroutine of connection, which
// fills waiting; answer empties it.
type conn struct {
	net.Conn          // with TLS, if there is any
	raw      net.Conn // without
	server   *Server
	sender   Sender // nil until the client was admitted
	head     []byte // the first bytes, until the size of the first packet is known
	known    bool
	waiting  chan *message

	mu     sync.Mutex     // guards what follows
	client *broker.Client // of MQTT 5 that was told that it is connected, and not yet that it isn't any more; else nil
	ending bool           // the broker has done with the connection
}

// message is one that was published. It waits to be stored, or was refused.
type message struct {
	client  *broker.Client
	qos     byte
	id      uint16
	topic   string
	payload []byte
	pending *gateway.Pending // nil if it was refused
	err     error            // why it couldn't be handed to the hub
	code    packets.Code     // of a refusal
	why     string
}

// size is about the memory that a message takes until it is stored.
func (m *message) size() int64 { return int64(len(m.payload)) + messageBytes }

var errFirst = errors.New("the connection doesn't begin as MQTT does, or its first packet is too large")

// Read reads for the broker. The broker takes memory for a whole packet before it
// arrives, so the size of the first packet is looked at before the broker does.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.known || n == 0 {
		return n, err
	}
	c.head = append(c.head, p[:n]...)
	known, ok := judgeFirst(c.head)
	if !ok {
		return 0, errFirst
	}
	if c.known = known; known {
		c.head = nil
	}
	return n, err
}

// judgeFirst judges the first bytes of a connection: known once the packet's size is, ok
// unless they can't be the begin of a small CONNECT.
func judgeFirst(head []byte) (known, ok bool) {
	const connect, lengthBytes = 0x10, 4
	if head[0] != connect {
		return false, false
	}
	size := 0
	for i, b := range head[1:] {
		if i == lengthBytes {
			return false, false
		}
		size |= int(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			return true, size <= maxConnect
		}
	}
	return false, true
}

// Close ends what the broker reads and writes. The connection itself is closed by end, so that lastWord comes before.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	return c.raw.SetDeadline(time.Unix(1, 0))
}

// SetDeadline bounds the next reads and writes, unless the connection was ended.
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return net.ErrClosed
	}
	return c.raw.SetDeadline(t)
}

// end closes the connection.
func (c *conn) end() {
	_ = c.Close()      // no deadline is set any more
	_ = c.Conn.Close() // nothing waits to be written
}

// sent notes what the broker told the client.
func (c *conn) sent(cl *broker.Client, pk packets.Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case pk.FixedHeader.Type == packets.Connack && pk.ReasonCode == packets.CodeSuccess.Code && cl.Properties.ProtocolVersion == 5:
		c.client = cl
	case pk.FixedHeader.Type == packets.Disconnect:
		c.client = nil
	}
}

// lastWord tells a client of MQTT 5 which of its packets ended its connection, for which the broker has no words.
// What the client is still sending is read until then, because a connection that is closed
// over unread bytes is reset, and the client may then lose what it was told.
func (c *conn) lastWord(err error, until time.Time) {
	code, ok := reasonOf(err)
	c.mu.Lock()
	cl := c.client
	c.client = nil
	c.mu.Unlock()
	if cl == nil || !ok {
		return
	}
	out := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ProtocolVersion: 5, ReasonCode: code.Code}
	out.Properties.ReasonString = code.Reason
	var text bytes.Buffer
	err = out.DisconnectEncode(&text)
	if most := int(cl.Properties.Props.MaximumPacketSize); most > 0 && text.Len() > most {
		text.Reset()
		out.Properties.ReasonString = ""
		err = out.DisconnectEncode(&text)
	}
	if err != nil || c.raw.SetDeadline(until) != nil {
		return
	}
	if _, err := c.Conn.Write(text.Bytes()); err != nil {
		return
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the client learns at once that nothing more comes
	}
	_, _ = io.Copy(io.Discard, c.raw) // until the client closes too
}

// reasonOf is the reason for which a client's packet ended its connection; false if another thing did.
func reasonOf(err error) (code packets.Code, ok bool) {
	switch {
	case err == nil:
		return code, false
	case errors.Is(err, packets.ErrPacketTooLarge):
		return packets.Code{Code: packets.ErrPacketTooLarge.Code, Reason: tooLarge}, true
	case errors.As(err, &code):
		return code, code.Code >= packets.ErrUnspecifiedError.Code
	}
	return packets.ErrMalformedPacket, strings.HasPrefix(err.Error(), "invalid packet type") // the broker's words, which have no code
}

// answer acknowledges messages in their order, each once it is stored.
func (c *conn) answer() {
	s := c.server
	for m := range c.waiting {
		var out gateway.Verdicts
		if m.pending != nil {
			out, m.err = m.pending.Wait()
			s.memory.Release(m.size())
		}
		switch {
		case m.err != nil:
			s.metrics.failed.Inc()
			s.tell("messages by MQTT can't be stored; their connections end, and clients send them again", "from", c.sender.String(), "error", m.err)
			if m.qos > 0 {
				_ = s.broker.DisconnectClient(m.client, packets.ErrServerBusy) // it sends the message again
			}
			continue
		case out.Rejected > 0:
			m.code, m.why = packets.ErrPayloadFormatInvalid, summary(out)
		case m.pending != nil && out.Accepted == 0:
			m.code, m.why = packets.ErrPayloadFormatInvalid, "the message holds no reading"
		}
		if m.why == "" {
			s.metrics.stored.Inc()
		} else {
			s.metrics.rejected.Inc()
			s.reject(c, m.topic, m.payload, m.why)
		}
		c.acknowledge(m)
	}
}

// summary says what is wrong with a message.
func summary(out gateway.Verdicts) string {
	why := strings.TrimPrefix(out.Reasons[0].String(), "line 1: ")
	if out.Accepted+out.Rejected > 1 {
		return "the readings that are well-formed are stored; " + why
	}
	return strings.TrimPrefix(why, "line 1, ")
}

// acknowledge answers a message that was stored or rejected.
func (c *conn) acknowledge(m *message) {
	if m.qos == 0 {
		return
	}
	v5 := m.client.Properties.ProtocolVersion == 5
	if m.code.Code == packets.ErrNotAuthorized.Code && !v5 {
		_ = c.server.broker.DisconnectClient(m.client, m.code) // an acknowledgement would say that the message was taken
		return
	}
	ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: m.id}
	if m.qos == 2 {
		ack.FixedHeader.Type = packets.Pubrec
	}
	if m.why != "" && v5 {
		ack.ReasonCode, ack.Properties.ReasonString = m.code.Code, shorten(m.why)
	} else if m.qos == 2 {
		m.client.State.Inflight.Set(ack) // until the client releases it
		m.client.State.Inflight.DecreaseReceiveQuota()
	}
	err := m.client.WritePacket(ack)
	if errors.Is(err, packets.ErrPacketTooLarge) { // for this client
		ack.Properties.ReasonString = ""
		_ = m.client.WritePacket(ack) // the client has gone, or sends again what isn't acknowledged
	}
}

// shorten makes a text fit into a property.
func shorten(text string) string {
	const most = 400
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}
