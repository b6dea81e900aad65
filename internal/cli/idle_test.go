package cli

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/gateway/device"
	"github.com/fleetscore/fleetscore/internal/simulator"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// quiet is a connection over HTTP that is kept open between requests.
type quiet struct {
	conn net.Conn
	in   *bufio.Reader
}

// ask sends a request and reads its answer.
func (q *quiet) ask(token string) error {
	_ = q.conn.SetDeadline(time.Now().Add(60 * time.Second)) // a TCP connection has deadlines
	if _, err := fmt.Fprintf(q.conn, "GET /api/v1/clock HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n\r\n", token); err != nil {
		return err
	}
	resp, err := http.ReadResponse(q.in, nil)
	if err != nil {
		return err
	}
	if _, err := q.in.Discard(int(resp.ContentLength)); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d, %v", resp.StatusCode, err)
	}
	return nil
}

// TestIdleConnections: 10,000 connections that send nothing, half of them over HTTP and half by MQTT, stay open beside devices that send, and
// take a bounded memory.
func TestIdleConnections(t *testing.T) {
	const each, perConnection, base = 5000, 50 << 10, 300 << 20
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 2*each+8192 {
		testkit.Missing(t, "a limit of 20,000 open files", "ulimit -n 20000")
	}
	yaml, port := mqttYAML(t, 2*time.Second, 15*time.Second)
	p := startServer(t, strings.Replace(yaml, "own_key: Device, ", "", 1))
	p.listens(port)
	token := p.token()
	before := p.memory()
	overHTTP, byMQTT := make([]*quiet, each), make([]device.Way, each)
	each16(func(i int) error {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			return err
		}
		overHTTP[i] = &quiet{c, bufio.NewReaderSize(c, 512)}
		byMQTT[i] = device.MQTT(device.MQTTConfig{Address: "127.0.0.1:" + port, Topic: "devices/{Device}/{Tag}", Token: token})
		if err := overHTTP[i].ask(token); err != nil {
			return err
		}
		_, err = byMQTT[i].Send(t.Context(), nil) // connects
		return err
	}, each, t)
	defer func() {
		for i := range each {
			if overHTTP[i] != nil {
				overHTTP[i].conn.Close()
			}
			if byMQTT[i] != nil {
				byMQTT[i].Close()
			}
		}
	}()
	if t.Failed() {
		t.FailNow()
	}
	sent := map[string]int64{}
	send := func(name string, w device.Way, n int) {
		t.Helper()
		r := simulator.Reading{Device: name, Tag: "4", Time: fleetscore.MicrosOf(time.Now().Truncate(time.Millisecond)), Value: float64(n)}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := w.Send(ctx, []simulator.Reading{r}); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, p.log)
		}
		sent[fmt.Sprint(fleetscore.MicrosOf(r.Time.Time().Add(time.Second-1).Truncate(time.Second)), " ", name, "/4")]++
	}
	busy := everyWay(t, p.addr, port, token, []string{"127.0.0.1:1"})
	for n := range 50 {
		send("ndjson", busy["ndjson"], n)
		send("mqtt", busy["mqtt"], n)
	}
	for i := 0; i < each; i += 100 { // those that were quiet for the longest time too
		if err := overHTTP[i].ask(token); err != nil {
			t.Fatalf("the connection %d over HTTP was closed: %v", i, err)
		}
		send("was-idle", byMQTT[i], i)
	}
	for _, w := range busy {
		w.Close()
	}
	most := p.memory()
	t.Logf("%d MB before, %d MB with %d idle connections: %d KB for each", before>>20, most>>20, 2*each, (most-before)/(2*each)>>10)
	if most > base+2*each*perConnection {
		t.Errorf("the server took %d MB; the bound is %d MB", most>>20, (base+2*each*perConnection)>>20)
	}
	p.complete(sent)
	if diff := cmp.Diff(sent, p.readings()); diff != "" {
		t.Errorf("readings per window and sensor (-acknowledged +in rows):\n%s", diff)
	}
}

// each16 calls f with each number below n, of 16 goroutines.
func each16(f func(int) error, n int, t *testing.T) {
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := g; i < n && !t.Failed(); i += 16 {
				if err := f(i); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}
