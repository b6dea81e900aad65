package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// connectionMQTT publishes messages with QoS 1, so many at a time. It speaks MQTT 3.1.1 by hand, so
// that the load takes little of the processors that it shares with the server.
func connectionMQTT(ctx context.Context, srv *server, next func([]byte) ([]byte, int), sent *atomic.Int64) (waits []time.Duration, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", srv.mqtt)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	in, out := bufio.NewReader(c), bufio.NewWriterSize(c, 64<<10)
	if err := signIn(in, out, c.LocalAddr().String(), srv.token); err != nil {
		return nil, err
	}
	type message struct {
		readings int
		sent     time.Time
	}
	inFlight := make(chan message, srv.flight) // answers come in the order of the messages
	answered := make(chan error, 1)
	go func() {
		answered <- func() error {
			for m := range inFlight {
				var a [4]byte
				if _, err := io.ReadFull(in, a[:]); err != nil {
					return err
				}
				if a[0] != 0x40 || a[1] != 2 {
					return fmt.Errorf("the server answered % x to a message, which is no PUBACK", a)
				}
				waits = append(waits, time.Since(m.sent))
				sent.Add(int64(m.readings))
			}
			return nil
		}()
		_ = c.Close() // so that the sender doesn't wait for more room
	}()
	publish := func() error {
		var text []byte
		for id := uint16(1); ; id++ {
			if id == 0 {
				id = 1
			}
			var n int
			if text, n = next(text[:0]); n == 0 {
				return out.Flush()
			}
			head := packet(0x32, 2+len("readings/1")+2+len(text))
			head = binary.BigEndian.AppendUint16(appendText(head, "readings/1"), id)
			if _, err := out.Write(head); err != nil {
				return err
			}
			if _, err := out.Write(text); err != nil {
				return err
			}
			m := message{n, time.Now()}
			select {
			case inFlight <- m:
				continue
			default:
			}
			if err := out.Flush(); err != nil {
				return err
			}
			select {
			case inFlight <- m:
			case err := <-answered:
				answered <- err
				return err
			}
		}
	}
	err = publish()
	close(inFlight)
	if failed := <-answered; failed != nil {
		err = failed
	}
	return waits, err
}

// signIn sends CONNECT and waits for the answer.
func signIn(in *bufio.Reader, out *bufio.Writer, id, token string) error {
	const user = "bench"
	b := packet(0x10, 10+2+len(id)+2+len(user)+2+len(token))
	b = append(appendText(b, "MQTT"), 4, 0xc2, 0, 0) // 3.1.1; user name, password, clean session; no keep-alive
	b = appendText(appendText(appendText(b, id), user), token)
	if _, err := out.Write(b); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	var a [4]byte
	if _, err := io.ReadFull(in, a[:]); err != nil {
		return err
	}
	if a[0] != 0x20 || a[3] != 0 {
		return fmt.Errorf("the server answered % x to CONNECT", a)
	}
	return nil
}

// packet begins a packet: its first byte and the length of the rest.
func packet(kind byte, length int) []byte {
	return binary.AppendUvarint([]byte{kind}, uint64(length)) // MQTT writes lengths as varints
}

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}
