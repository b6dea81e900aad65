package cli

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// mqttYAML is a fleet whose server takes readings by MQTT at an address that is free.
func mqttYAML(t *testing.T, more string) (yaml, port string) {
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
hub: {key: [Device, Tag], time: TS, idle_after: 1s, disorder: 1s, own_key: Device, mqtt: {listen: "127.0.0.1:%s"%s}}
queries:
  readings: {sql: "SELECT System.Timestamp() AS TS, Device, Tag, COUNT(*) AS N, AVG(Value) AS Value INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, Tag, TumblingWindow(second, 1)", cut: 1s}
`, port, more), port
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
	yaml, port := mqttYAML(t, "")
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
