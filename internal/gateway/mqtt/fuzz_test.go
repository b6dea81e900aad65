package mqtt

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

// anyone is a client that is let in.
type anyone struct{}

func (anyone) String() string { return "anyone" }
func (anyone) Device() string { return "d" }

// defects fails a fuzz test when the server logs an error, which it does about its own defects.
type defects struct {
	slog.Handler
	t testing.TB
}

func (e defects) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }

func (e defects) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		e.t.Errorf("%s: %s", r.Message, a)
		return true
	})
	return nil
}

// client is a connection of a client that has sent all that it sends, and reads whatever comes.
type client struct {
	*bytes.Reader
	net.Conn // has no other methods
}

func (c *client) Read(p []byte) (int, error)     { return c.Reader.Read(p) }
func (*client) Write(p []byte) (int, error)      { return len(p), nil }
func (*client) Close() error                     { return nil }
func (*client) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*client) SetDeadline(time.Time) error      { return nil }
func (*client) SetReadDeadline(time.Time) error  { return nil }
func (*client) SetWriteDeadline(time.Time) error { return nil }

// FuzzPackets: whatever a client sends, before or after it has connected, only its own connection may end, and it ends with the client.
func FuzzPackets(f *testing.F) {
	const connect = "\x10\x13\x00\x04MQTT\x05\xc2\x00\x00\x00\x00\x00\x00\x01u\x00\x01p"
	publish := func(qos byte, payload string) string {
		rest := "\x00\x05d/d/t"
		if qos > 0 {
			rest += "\x00\x01"
		}
		rest += "\x00" + payload // no properties
		return string([]byte{0x30 | qos<<1, byte(len(rest))}) + rest
	}
	for _, s := range []string{"", connect, publish(0, `{"V":1}`), publish(1, `{"V":1}`), publish(2, `[{"TS":1763892005000,"V":1},{}]`), publish(1, "21.5"), "\x10\x12\x00\x04MQTT\x04\xc2\x00\x00\x00\x00\x00\x01u\x00\x01p",
		"\x62\x02\x00\x02", "\x82\x07\x00\x03\x00\x00\x01#\x00", "\x82\x06\x00\x03\x00\x00\x01#", "\xa2\x06\x00\x04\x00\x00\x01#", "\xc0\x00", "\xe0\x00", "\xf0\x00", "\x30\xff\xff\xff\x7f"} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	h := fleetscore.HubConfig{Key: []string{"Device", "Tag"}, Time: "TS", OwnKey: "Device"}
	g, err := gateway.New(gateway.Config{Hub: h, Sources: []fleetscore.Source{fleetscore.SourceMQTT}}, gateway.Deps{Hub: hubtest.New(1)})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	f.Cleanup(func() { cancel(); <-done })
	send := func(t testing.TB, data []byte, connected bool) {
		s, err := New(Config{MQTT: fleetscore.MQTTConfig{Topic: "d/{Device}/{Tag}", Value: "V", ArrivalTime: true}, Hub: h},
			Deps{Gateway: g, Admit: func(Client) (Sender, error) { return anyone{}, nil }, Log: slog.New(defects{t: t})})
		if err != nil {
			t.Fatal(err)
		}
		if connected {
			data = append([]byte(connect), data...)
		}
		ended := make(chan struct{})
		go func() {
			s.connection(&client{Reader: bytes.NewReader(data)})
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Fatal("the connection doesn't end")
		}
		if n := s.connections(); n != 0 {
			t.Errorf("%v connections are left", n)
		}
	}
	if send(f, []byte(publish(1, `{"V":1}`)+publish(2, "21.5")), true); g.Stats().Accepted != 2 {
		f.Fatalf("of two good messages %d were taken, %+v", g.Stats().Accepted, g.Stats())
	}
	f.Fuzz(func(t *testing.T, data []byte, connected bool) { send(t, data, connected) })
}
