package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// mqttYAML is a fleet whose server takes readings by MQTT at an address that is free.
func mqttYAML(t *testing.T, idle, disorder time.Duration) (yaml, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
hub: {key: [Device, Tag], time: TS, idle_after: %s, disorder: %s, own_key: Device, mqtt: {listen: "127.0.0.1:%s"}}
queries:
  readings: {sql: "SELECT System.Timestamp() AS TS, Device, Tag, COUNT(*) AS N, AVG(Value) AS Value INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, Tag, TumblingWindow(second, 1)", cut: 1s}
`, idle, disorder, port), port
}

// listens waits until the server takes readings by MQTT.
func (p *process) listens(port string) {
	p.t.Helper()
	for range 300 {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond) // it has no other way to say so
	}
	p.t.Fatalf("the server doesn't listen for MQTT:\n%s", p.log)
}

// mosquitto publishes with mosquitto_pub, which reads user and password from a file.
func mosquitto(t *testing.T, port, token string, args ...string) (string, error) {
	t.Helper()
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "mosquitto_pub"), []byte("-u press-1\n-P "+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := testkit.Command(t, "mosquitto_pub", append([]string{"-h", "127.0.0.1", "-p", port}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+home, "HOME="+home)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestMosquitto sends readings with every version and quality of service that
// mosquitto_pub knows; each is in one row.
func TestMosquitto(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "mosquitto_pub", "mosquitto-clients")
	yaml, port := mqttYAML(t, time.Second, time.Second)
	p := startServer(t, yaml)
	p.listens(port)
	now := time.Now().UTC().Truncate(time.Second)
	sent := map[string]int64{}
	for i, version := range []string{"mqttv311", "mqttv5"} {
		for qos := range 3 {
			tag := fmt.Sprint(version, "-", qos)
			at := now.Add(time.Duration(100*i) * time.Millisecond)
			body := fmt.Sprintf(`{"TS":"%s","Value":%d}`, at.Format("2006-01-02T15:04:05.000Z"), qos)
			if out, err := mosquitto(t, port, p.token(), "-V", version, "-q", fmt.Sprint(qos), "-t", "devices/press-1/"+tag, "-m", body); err != nil {
				t.Errorf("%s: %v\n%s", tag, err, out)
			}
			end := at.Add(time.Second - 1).Truncate(time.Second)
			sent[fmt.Sprint(fleetscore.MicrosOf(end), " press-1/", tag)]++
		}
	}
	if t.Failed() {
		t.Fatalf("%s", p.log)
	}
	p.complete(sent)
	if diff := cmp.Diff(sent, p.readings()); diff != "" {
		t.Errorf("readings per window and sensor (-acknowledged +in rows):\n%s", diff)
	}
}

// deviceToken makes a token of the role device and returns its text and its file.
func (p *process) deviceToken(name string) (token, file string) {
	p.t.Helper()
	code, token, stderr := command(p.t, "token", "create", "device", name, "--server=http://"+p.addr)
	if code != 0 {
		p.t.Fatalf("exit %d\n%s", code, stderr)
	}
	file = filepath.Join(p.t.TempDir(), name+".token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(token), file
}

// TestMQTTRefusals: each kind of message that can't be taken gets a clear answer and is
// counted, garbage ends its connection alone, and a good reading is taken after all of it.
func TestMQTTRefusals(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "mosquitto_pub", "mosquitto-clients")
	yaml, port := mqttYAML(t, time.Second, time.Second)
	p := startServer(t, yaml)
	p.listens(port)
	token, _ := p.deviceToken("press-1")
	now := time.Now().UTC().Truncate(time.Second)
	reading := fmt.Sprintf(`{"TS":"%s","Value":1}`, now.Format(time.RFC3339))
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, []byte(strings.Repeat(" ", 300<<10)+reading), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, token, topic, body string
		v5, v311                 string // in what mosquitto_pub prints; empty means that it succeeds silently
	}{
		{"wrong token", token + "x", "devices/press-1/4", reading, "Bad User Name or Password", "not authorised"},
		{"no token", "none", "devices/press-1/4", reading, "Bad User Name or Password", "not authorised"},
		{"another device", token, "devices/press-2/4", reading, "Not authorized", "Error:"},
		{"another topic", token, "machines/press-1/4", reading, "Topic name invalid", ""},
		{"a topic of the system", token, "$SYS/press-1/4", reading, "Topic name invalid", ""},
		{"no JSON", token, "devices/press-1/4", "{", "Payload format invalid", ""},
		{"no time", token, "devices/press-1/4", `{"Value":1}`, "Payload format invalid", ""},
		{"a number", token, "devices/press-1/4", "21.5", "Payload format invalid", ""},
		{"another device in the payload", token, "devices/press-1/4", strings.Replace(reading, "{", `{"Device":"press-2",`, 1), "Payload format invalid", ""},
	} {
		for version, want := range map[string]string{"mqttv5": c.v5, "mqttv311": c.v311} {
			out, _ := mosquitto(t, port, c.token, "-V", version, "-q", "1", "-t", c.topic, "-m", c.body) // its exit code says less than its words
			if want == "" && out != "" || !strings.Contains(strings.ToLower(out), strings.ToLower(want)) {
				t.Errorf("%s, %s: mosquitto_pub says %q, want %q", c.name, version, out, want)
			}
		}
	}
	count := func(metric string) int {
		_, metrics := p.page("/metrics")
		_, rest, _ := strings.Cut(metrics, "\n"+metric+" ")
		n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
		if err != nil {
			t.Errorf("%s: %v", metric, err)
		}
		return n
	}
	const rejected = `fleetscore_gateway_readings_total{verdict="rejected"}`
	if got := count(rejected); got != 14 {
		t.Errorf("%d readings are rejected, want 14", got)
	}
	if out, _ := mosquitto(t, port, token, "-V", "mqttv311", "-q", "1", "-t", "devices/press-1/4", "-f", large); !strings.Contains(out, "Error:") {
		t.Errorf("a message that is too large: %q", out)
	}
	if got := count(rejected); got < 15 { // mosquitto_pub may try again
		t.Errorf("%d readings are rejected, want the one that is too large as well", got)
	}
	for _, version := range []string{"mqttv5", "mqttv311"} {
		sub := testkit.Command(t, "mosquitto_sub", "-h", "127.0.0.1", "-p", port, "-V", version, "-u", "x", "-P", token, "-t", "devices/#", "-W", "10")
		if out, _ := sub.CombinedOutput(); !strings.Contains(string(out), "denied") {
			t.Errorf("%s: mosquitto_sub says %q, want that the subscription is denied", version, out)
		}
	}
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "\x10\xff\xff\xff\x7f", "\x10\xff\xff\xff\xff\xff", "\x00\x00", "\x10\x0c\x00\x04MQTT\x09\x02\x00\x3c\x00\x00"} {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second)) // a TCP connection has deadlines
		_, _ = c.Write([]byte(garbage))                    // the server may have closed it
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the connection stays open after %q", garbage)
		}
		c.Close()
	}
	if out, err := mosquitto(t, port, token, "-V", "mqttv5", "-q", "1", "-t", "devices/press-1/4", "-m", reading); err != nil || out != "" {
		t.Errorf("a good reading after all: %v %s\n%s", err, out, p.log)
	}
	if a, b := count(`fleetscore_gateway_readings_total{verdict="accepted"}`), count(`fleetscore_gateway_mqtt_messages_total{outcome="stored"}`); a != 1 || b != 1 {
		t.Errorf("%d readings of %d messages are stored, want 1 of 1", a, b)
	}
	sent := map[string]int64{fmt.Sprint(fleetscore.MicrosOf(now), " press-1/4"): 1}
	p.complete(sent)
	if diff := cmp.Diff(sent, p.readings()); diff != "" {
		t.Errorf("readings (-acknowledged +in rows):\n%s", diff)
	}
	if text := p.log.String(); strings.Contains(text, token) {
		t.Error("the log holds the token")
	}
}

// TestPahoKilled kills the server again and again while clients of paho-mqtt publish with
// QoS 1 and 2: every acknowledged reading is in one row, once.
func TestPahoKilled(t *testing.T) {
	t.Parallel()
	python := testkit.Venv(t, "paho-mqtt==2.1.0")
	yaml, port := mqttYAML(t, 5*time.Second, time.Minute) // clients that connect again are neither silent nor late
	p := startServer(t, yaml)
	p.listens(port)
	_, file := p.deviceToken("press-1")
	const each = 400
	type client struct {
		tag      string
		out, log logText
		done     chan error
	}
	var clients []*client
	for _, version := range []string{"3.1.1", "5"} {
		for _, qos := range []string{"1", "2"} {
			c := &client{tag: version + "-" + qos, done: make(chan error, 1)}
			cmd := testkit.LongCommand(t, python, filepath.Join("testdata", "publish.py"), port, file, version, qos, c.tag, fmt.Sprint(each))
			cmd.Stdout, cmd.Stderr = &c.out, &c.log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			go func() { c.done <- cmd.Wait() }()
			clients = append(clients, c)
		}
	}
	acknowledged := func() (n int) { // 0 until all clients are connected: their first connection isn't tried again
		for _, c := range clients {
			mine := strings.Count(c.out.String(), "\n")
			if mine == 0 {
				return 0
			}
			n += mine
		}
		return n
	}
	for round := range 3 {
		for end := time.Now().Add(30 * time.Second); acknowledged() < 40+200*round; {
			if time.Now().After(end) {
				t.Fatalf("%d readings are acknowledged\n%s\n%s", acknowledged(), &clients[0].log, p.log)
			}
			time.Sleep(5 * time.Millisecond) // other processes' output
		}
		p.kill()
		p.start()
	}
	sent := map[string]int64{}
	for _, c := range clients {
		if err := <-c.done; err != nil {
			t.Fatalf("%s: %v\n%s", c.tag, err, &c.log)
		}
		for line := range strings.Lines(c.out.String()) {
			at, err := time.Parse(time.RFC3339, strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			sent[fmt.Sprint(fleetscore.MicrosOf(at.Add(time.Second-1).Truncate(time.Second)), " press-1/", c.tag)]++
		}
	}
	if n := sum(sent); n != each*int64(len(clients)) {
		t.Errorf("%d readings are acknowledged, want %d", n, each*len(clients))
	}
	p.complete(sent)
	if diff := cmp.Diff(sent, p.readings()); diff != "" {
		t.Errorf("readings per window and sensor (-acknowledged +in rows):\n%s", diff)
	}
}

// TestMQTTOverTLS: a server that speaks TLS does so for MQTT too, and for nothing else.
func TestMQTTOverTLS(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "mosquitto_pub", "mosquitto-clients")
	yaml, port := mqttYAML(t, time.Second, time.Second)
	p := newServer(t, yaml, func(string) {})
	p.args = []string{"--tls-self-signed"}
	p.begin()
	p.listens(port)
	args := []string{"-V", "mqttv5", "-q", "1", "-t", "devices/press-1/4", "-m", fmt.Sprintf(`{"TS":"%s","Value":1}`, time.Now().UTC().Format(time.RFC3339))}
	ca := filepath.Join(p.dir, "data", "secrets", "tls-ca.pem")
	if out, err := mosquitto(t, port, p.token(), append(args, "--cafile", ca)...); err != nil || out != "" {
		t.Errorf("with TLS: %v %s\n%s", err, out, p.log)
	}
	if out, err := mosquitto(t, port, p.token(), args...); err == nil {
		t.Errorf("a reading is taken without TLS: %s", out)
	}
}
