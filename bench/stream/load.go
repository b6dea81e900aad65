package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// body is the text of one request: readings of a fixed list of sensors. Only their time
// is written anew each time.
type body struct {
	text   []byte
	times  []int // places of the times
	offset []int // of the readings, from the first reading of the round, in milliseconds
}

const timeForm = "2006-01-02T15:04:05.000Z"

// bodies are the requests of one round, in which each sensor sends one reading.
func bodies(s setting) []*body {
	random := rand.New(rand.NewPCG(1, 2))
	var out []*body
	var b *body
	end := func() { // a message by MQTT is an array
		if s.MQTT > 0 {
			b.text[len(b.text)-1] = ']'
		}
	}
	for k := range s.Keys {
		full := b != nil && len(b.text) > s.BodyBytes-80
		if s.MQTT > 0 {
			full = b != nil && len(b.times) == s.MQTT
		}
		if b != nil && full {
			end()
			b = nil
		}
		if b == nil {
			b = &body{}
			out = append(out, b)
			if s.MQTT > 0 {
				b.text = append(b.text, '[')
			}
		}
		b.text = append(b.text, `{"TS":"`...)
		b.times = append(b.times, len(b.text))
		b.offset = append(b.offset, k*1000/s.PerSecond/s.Keys)
		b.text = append(b.text, timeForm+`","Device":`...)
		b.text = strconv.AppendInt(b.text, int64(k/100), 10)
		b.text = append(b.text, `,"Tag":`...)
		b.text = strconv.AppendInt(b.text, int64(k%100), 10)
		b.text = append(b.text, `,"Value":`...)
		b.text = strconv.AppendFloat(b.text, float64(random.IntN(100_000))/1000, 'f', -1, 64)
		if b.text = append(b.text, "}\n"...); s.MQTT > 0 {
			b.text[len(b.text)-1] = ','
		}
	}
	end()
	return out
}

// at writes the times of a round that begins at a time.
func (b *body) at(dst []byte, round time.Time) []byte {
	from := len(dst)
	dst = append(dst, b.text...)
	last, text := -1, make([]byte, 0, len(timeForm))
	for i, place := range b.times {
		if b.offset[i] != last {
			last = b.offset[i]
			text = round.Add(time.Duration(last)*time.Millisecond).AppendFormat(text[:0], timeForm)
		}
		copy(dst[from+place:], text)
	}
	return dst
}

// began is the time of the first reading: it is in the past, so that event time can go faster than
// the clock.
var began = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// roundTime is when a round begins, after the first one.
func roundTime(s setting, n int64) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(s.PerSecond)
}

// writeFile writes the readings into a file.
func writeFile(name string, s setting) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close() // it is closed below, if all went well
	out := bufio.NewWriterSize(f, 1<<20)
	round := bodies(s)
	var text []byte
	for n := range max(1, s.Readings/s.Keys) {
		for _, b := range round {
			text = b.at(text[:0], began.Add(roundTime(s, int64(n))))
			if _, err := out.Write(text); err != nil {
				return err
			}
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// send sends the readings and returns how many were acknowledged, and how long each
// request waited for its answer.
func send(ctx context.Context, s setting, srv *server) (int64, []time.Duration, error) {
	round := bodies(s)
	rounds := max(1, s.Readings/s.Keys)
	begin := began
	if s.Rate > 0 {
		begin = time.Now().UTC()
	}
	var next, sent atomic.Int64
	var mu sync.Mutex // guards what follows
	var waits []time.Duration
	var failed error
	var group sync.WaitGroup
	start := time.Now()
	for range s.Connections {
		group.Go(func() {
			connection := connection
			if s.MQTT > 0 {
				connection = connectionMQTT
			}
			mine, err := connection(ctx, srv, func(dst []byte) ([]byte, int) {
				n := next.Add(1) - 1
				if n >= int64(rounds*len(round)) {
					return nil, 0
				}
				b := round[n%int64(len(round))]
				if s.Rate > 0 {
					time.Sleep(time.Until(start.Add(time.Duration(float64(n) * float64(s.Keys) / float64(len(round)) / float64(s.Rate) * float64(time.Second)))))
				}
				return b.at(dst, begin.Add(roundTime(s, n/int64(len(round))))), len(b.times)
			}, &sent)
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, mine...)
			failed = errors.Join(failed, err)
		})
	}
	group.Wait()
	return sent.Load(), waits, failed
}

// connection sends requests one after the other. The requests are written by hand, so
// that the load takes little of the processors that it shares with the server.
func connection(ctx context.Context, srv *server, next func([]byte) ([]byte, int), sent *atomic.Int64) (waits []time.Duration, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", srv.address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	in := bufio.NewReader(c)
	var text []byte
	for {
		var n int
		text, n = next(text[:0])
		if n == 0 {
			return waits, nil
		}
		began := time.Now()
		head := fmt.Appendf(nil, "POST /api/v1/hubs/hub/messages HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n", srv.address, srv.token, len(text))
		buffers := net.Buffers{head, text}
		if _, err := buffers.WriteTo(c); err != nil {
			return waits, err
		}
		if err := answer(in); err != nil {
			return waits, err
		}
		waits = append(waits, time.Since(began))
		sent.Add(int64(n))
	}
}

// answer reads an answer and refuses all but 200.
func answer(in *bufio.Reader) error {
	status, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	good := bytes.HasPrefix(status, []byte("HTTP/1.1 200"))
	what := string(status)
	length := 0
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if good {
		_, err = in.Discard(length)
		return err
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(in, text); err != nil {
		return err
	}
	return fmt.Errorf("%s%s", what, text)
}

func percentile(waits []time.Duration, p float64) float64 {
	if len(waits) == 0 {
		return 0
	}
	slices.Sort(waits)
	return waits[int(p*float64(len(waits)-1))].Seconds() * 1000
}

// ownCPU is the CPU time of this process in seconds.
func ownCPU() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
