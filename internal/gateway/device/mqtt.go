package device

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/simulator"
)

// MQTTConfig says where readings are sent by MQTT 5.
type MQTTConfig struct {
	Address string      // host:port
	TLS     *tls.Config // nil means none
	Topic   string      // with {Device} and {Tag}
	Token   string      // the password; empty means none
}

// MQTT sends readings by MQTT 5 with QoS 1, a message for each. Up to maxInFlight wait for their acknowledgement.
func MQTT(cfg MQTTConfig) Way { return &overMQTT{cfg: cfg} }

const (
	maxInFlight = 100
	maxAnswer   = 64 << 10 // bytes of a packet from the server
)

type overMQTT struct {
	cfg  MQTTConfig
	conn net.Conn // nil while there is none
	in   *bufio.Reader
	next uint16 // id of the next message
}

// Send implements Way.
func (m *overMQTT) Send(ctx context.Context, list []simulator.Reading) (done int, err error) {
	if err := m.connect(ctx); err != nil {
		m.Close()
		return 0, m.away(err)
	}
	deadline, _ := ctx.Deadline()
	conn := m.conn                 // m gives it up after an error
	_ = conn.SetDeadline(deadline) // a TCP connection has deadlines; a zero one is none
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	waiting := map[uint16]int{} // places in list
	acknowledged := make([]bool, len(list))
	var out bytes.Buffer
	for sent := 0; done < len(list); {
		for sent < len(list) && len(waiting) < maxInFlight {
			if m.next++; m.next == 0 {
				m.next = 1
			}
			if err := m.publish(&out, list[sent]); err != nil {
				return done, err
			}
			waiting[m.next] = sent
			sent++
		}
		if out.Len() > 0 {
			_, err = m.conn.Write(out.Bytes())
			out.Reset()
		}
		var id uint16
		var refused error
		if err == nil {
			id, refused, err = m.answer()
		}
		if err != nil {
			m.Close()
			return done, m.away(err)
		}
		at, ok := waiting[id]
		if !ok {
			continue
		}
		if refused != nil {
			return done, refused
		}
		delete(waiting, id)
		for acknowledged[at] = true; done < len(list) && acknowledged[done]; {
			done++
		}
	}
	return done, nil
}

func (m *overMQTT) away(err error) error {
	if own := fleetscore.KindOf(err); own == fleetscore.Invalid {
		return err
	}
	return fleetscore.Errorf(fleetscore.Unavailable, sendOp, m.cfg.Address, "%w", err)
}

func (m *overMQTT) publish(out *bytes.Buffer, r simulator.Reading) error {
	text := r.AppendNDJSON(nil)
	p := packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: m.next,
		TopicName: strings.NewReplacer("{Device}", r.Device, "{Tag}", r.Tag).Replace(m.cfg.Topic), Payload: text[:len(text)-1]}
	return p.PublishEncode(out)
}

// connect makes a connection, if there is none.
func (m *overMQTT) connect(ctx context.Context) (err error) {
	if m.conn != nil {
		return nil
	}
	if m.cfg.TLS != nil {
		m.conn, err = (&tls.Dialer{Config: m.cfg.TLS}).DialContext(ctx, "tcp", m.cfg.Address)
	} else {
		m.conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", m.cfg.Address)
	}
	if err != nil {
		m.conn = nil
		return err
	}
	m.in = bufio.NewReader(m.conn)
	p := packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: packets.Connect},
		Connect: packets.ConnectParams{ProtocolName: []byte("MQTT"), Clean: true, ClientIdentifier: "fleetscore-" + strings.ToLower(rand.Text()[:8])}}
	if m.cfg.Token != "" {
		p.Connect.UsernameFlag, p.Connect.Username = true, []byte("simulator")
		p.Connect.PasswordFlag, p.Connect.Password = true, []byte(m.cfg.Token)
	}
	var out bytes.Buffer
	if err := p.ConnectEncode(&out); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	_ = m.conn.SetDeadline(deadline)
	if _, err := m.conn.Write(out.Bytes()); err != nil {
		return err
	}
	a, err := m.read()
	if err != nil {
		return err
	}
	if a.ReasonCode != 0 {
		return fleetscore.Errorf(fleetscore.Invalid, "connect by MQTT", m.cfg.Address, "the server refuses the connection (reason code 0x%02x)", a.ReasonCode).
			WithHint("give a token of the role device or above with --token-file")
	}
	return nil
}

// answer waits for the next acknowledgement. refused says why the server won't take the message.
func (m *overMQTT) answer() (id uint16, refused, err error) {
	for {
		p, err := m.read()
		if err != nil {
			return 0, nil, err
		}
		switch p.FixedHeader.Type {
		case packets.Disconnect:
			return 0, nil, fmt.Errorf("the server ends the connection (reason code 0x%02x)", p.ReasonCode)
		case packets.Puback:
			if p.ReasonCode >= 0x80 {
				refused = fleetscore.Errorf(fleetscore.Invalid, sendOp, m.cfg.Address, "the server refuses a message (reason code 0x%02x): %s", p.ReasonCode, p.Properties.ReasonString).
					WithHint("let --mqtt-topic be like hub.mqtt.topic of the configuration")
			}
			return p.PacketID, refused, nil
		}
	}
}

// read reads the next packet.
func (m *overMQTT) read() (p packets.Packet, err error) {
	p.ProtocolVersion = 5
	first, err := m.in.ReadByte()
	if err == nil {
		err = p.FixedHeader.Decode(first)
	}
	if err == nil {
		p.FixedHeader.Remaining, _, err = packets.DecodeLength(m.in)
	}
	if err == nil && p.FixedHeader.Remaining > maxAnswer {
		err = fmt.Errorf("the server sends a packet of %d bytes", p.FixedHeader.Remaining)
	}
	if err != nil {
		return p, err
	}
	body := make([]byte, p.FixedHeader.Remaining)
	if _, err := io.ReadFull(m.in, body); err != nil {
		return p, err
	}
	switch p.FixedHeader.Type {
	case packets.Connack:
		err = p.ConnackDecode(body)
	case packets.Puback:
		err = p.PubackDecode(body)
	case packets.Disconnect:
		err = p.DisconnectDecode(body)
	}
	return p, err
}

// Close implements Way.
func (m *overMQTT) Close() {
	if m.conn != nil {
		m.conn.Close() // everything that counts was acknowledged
		m.conn = nil
	}
}
