package mqtt

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

// The first packets of clients, and what a client of MQTT 5 is told last: DISCONNECT with a reason.
const (
	connect5     = "\x10\x13\x00\x04MQTT\x05\xc2\x00\x00\x00\x00\x00\x00\x01u\x00\x01p"
	connectSmall = "\x10\x19\x00\x04MQTT\x05\xc2\x00\x00\x05\x27\x00\x00\x00\x28\x00\x01s\x00\x01u\x00\x01p" // takes packets of 40 bytes
	connect311   = "\x10\x13\x00\x04MQTT\x04\xc2\x00\x00\x00\x01c\x00\x01u\x00\x01p"
)

// TestLastWord: a client of MQTT 5 is told by a DISCONNECT which of its packets ended its connection, also while it is
// still sending; others aren't, because their protocol has no such packet.
func TestLastWord(t *testing.T) {
	t.Parallel()
	h := fleetscore.HubConfig{Key: []string{"Device", "Tag"}, Time: "TS"}
	g, err := gateway.New(gateway.Config{Hub: h, Sources: []fleetscore.Source{fleetscore.SourceMQTT}}, gateway.Deps{Hub: hubtest.New(1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	defer func() { cancel(); <-done }()
	s, err := New(Config{MQTT: fleetscore.MQTTConfig{Topic: "d/{Device}/{Tag}", Value: "V", ArrivalTime: true}, Hub: h},
		Deps{Gateway: g, Admit: func(Client) (Sender, error) { return anyone{}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	large := "\x30\x80\x80\x80\x04\x00\x05d/d/t" + strings.Repeat(" ", 8<<20) // in a packet of 8 MiB
	for name, c := range map[string]struct {
		connect, packet string
		reason          byte   // 0 if nothing is to be told
		text            string // with it
	}{
		"too large":                 {connect5, large, 0x95, tooLarge},
		"too large, small answers":  {connectSmall, large, 0x95, ""},
		"too large by 3.1.1":        {connect311, large, 0, ""},
		"cut short":                 {connect5, "\x82\x06\x00\x03\x00\x00\x01#", 0x81, "malformed packet"},
		"cut short by 3.1.1":        {strings.Replace(connect311, "\x01c", "\x01d", 1), "\x82\x05\x00\x03\x00\x01#", 0, ""},
		"of no type":                {connect5, "\x00\x00", 0x81, "malformed packet"},
		"with wrong flags":          {connect5, "\x83\x00", 0x81, "malformed"},
		"with a length of 5 bytes":  {connect5, "\x30\xff\xff\xff\xff\x7f", 0x81, "malformed"},
		"with a QoS of 3":           {connect5, "\x36\x00", 0x82, "protocol violation"},
		"connected twice":           {connect5, connect5, 0x82, "protocol violation"}, // the broker has words of its own
		"the client ends it":        {connect5, "\xe0\x00", 0, ""},
		"no CONNECT":                {"", "\x30\x00", 0, ""},
		"too large as first packet": {"", "\x10\xff\xff\x7f\x00\x04MQTT\x05", 0, ""},
		"unfinished when it goes":   {connect5, "\x30\x7f", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := converse(t, s, c.connect, c.packet)
			switch {
			case err != nil && c.reason != 0: // the connection is reset, and other systems than Linux then forget what came
				t.Error(err)
			case c.reason == 0 && len(got) != 0:
				t.Errorf("told % x, want nothing", got)
			case c.reason != 0 && (len(got) < 4 || got[0] != 0xe0 || int(got[1]) != len(got)-2 || got[2] != c.reason || !bytes.Contains(got, []byte(c.text)) || (c.text == "") != (got[3] == 0)):
				t.Errorf("told %q, want a DISCONNECT with %#x and %q", got, c.reason, c.text)
			}
		})
	}
}

// converse sends packets and returns what the server says after its CONNACK, until it ends the connection.
func converse(t *testing.T, s *Server, connect, packet string) ([]byte, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if raw, err := l.Accept(); err == nil {
			s.connection(raw)
		}
	}()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { client.Close(); <-ended }()
	_ = client.SetDeadline(time.Now().Add(time.Minute)) // a server that hangs is a failure
	if _, err := io.WriteString(client, connect); err != nil {
		t.Fatal(err)
	}
	if connect != "" {
		head := make([]byte, 2)
		if _, err := io.ReadFull(client, head); err != nil || head[0] != 0x20 {
			t.Fatalf("% x, %v; want a CONNACK", head, err)
		}
		if _, err := io.CopyN(io.Discard, client, int64(head[1])); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = io.WriteString(client, packet) // the server may end the connection meanwhile; the client reads nothing until it has sent all
	if half, ok := client.(*net.TCPConn); ok && strings.HasSuffix(packet, "\x7f") {
		_ = half.CloseWrite() // the rest never comes
	}
	return io.ReadAll(client)
}
