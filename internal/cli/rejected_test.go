package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestRejectedIsKept: messages by MQTT that are rejected are kept with the reason, also when the server is killed. They are taken
// when they are handed over again after a change of fleet.yaml, once; those of another device's topic are rejected still.
func TestRejectedIsKept(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "mosquitto_pub", "mosquitto-clients")
	yaml, port := mqttYAML(t, time.Hour, time.Second)
	yaml = strings.Replace(yaml, "hub: {", "hub: {partitions: 3, ", 1)
	p := startServer(t, yaml)
	p.listens(port)
	token, _ := p.deviceToken("press-1")
	for _, m := range [][2]string{{"devices/press-1/4", "21.5"}, {"devices/press-2/4", "22.5"}, {"devices/press-1/4", "21.5"}} {
		_, _ = mosquitto(t, port, token, "-V", "mqttv5", "-q", "1", "-t", m[0], "-m", m[1]) // it says that they are rejected
	}
	p.kill()
	p.start()
	server := "--server=http://" + p.addr
	list := func() (all []api.Rejected) {
		t.Helper()
		code, out, stderr := command(t, "rejected", "ls", "-o", "json", server)
		if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 {
			t.Fatalf("exit %d, %v\n%s%s", code, err, out, stderr)
		}
		return all
	}
	all := list()
	if len(all) != 2 || all[0].Text != "21.5" || all[0].Times != 2 || all[0].Topic != "devices/press-1/4" || !strings.Contains(all[0].Reason, "not a JSON object") || all[0].From != "the token press-1" {
		t.Fatalf("kept are %+v", all)
	}
	if other := all[1]; other.Text != "22.5" || !strings.Contains(other.Reason, "may only send its own readings") {
		t.Errorf("kept of another device's topic is %+v", other)
	}
	if code, out, _ := command(t, "rejected", "show", all[0].ID, server); code != 0 || !strings.Contains(out, "21.5") || !strings.Contains(out, "not a JSON object") {
		t.Errorf("show: exit %d\n%s", code, out)
	}
	if code, out, stderr := command(t, "rejected", "redrive", "--all", server); code != exitPartly || !strings.Contains(out, "not a JSON object") || !strings.Contains(stderr, "0 taken, 2 rejected again") {
		t.Errorf("redrive before the change: exit %d\n%s%s", code, out, stderr)
	}
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(yaml, "mqtt: {", "mqtt: {value: Value, arrival_time: true, ", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, stderr := command(t, "apply", file, server); code != 0 {
		t.Fatalf("apply: exit %d\n%s%s", code, out, stderr)
	}
	var code int
	var out, stderr string
	for range 100 { // until the gateway goes by the new configuration
		if code, out, stderr = command(t, "rejected", "redrive", all[0].ID, server); code == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if code != 0 || !strings.Contains(stderr, "1 taken, 0 rejected again") {
		t.Fatalf("redrive: exit %d\n%s%s", code, out, stderr)
	}
	if code, _, _ := command(t, "rejected", "redrive", all[0].ID, server); code != 12 {
		t.Errorf("once more: exit %d, want 12", code)
	}
	if code, out, stderr := command(t, "rejected", "redrive", "--all", server); code != exitPartly || !strings.Contains(out, "may only send its own readings") {
		t.Errorf("redrive of another device's topic: exit %d\n%s%s", code, out, stderr)
	}
	for _, args := range [][]string{{"drop"}, {"drop", "--all"}, {"redrive"}, {"redrive", "--all", "x"}} {
		if code, out, stderr := command(t, append(append([]string{"rejected"}, args...), server)...); code != exitUsage {
			t.Errorf("%q: exit %d\n%s%s", args, code, out, stderr)
		}
	}
	if code, out, stderr := command(t, "rejected", "drop", "--all", "--yes", server); code != 0 || len(list()) != 0 {
		t.Errorf("drop: exit %d\n%s%s", code, out, stderr)
	}
	p.stop()
	n := 0
	for _, v := range hubValues(t, filepath.Join(p.dir, "data", "hub")) {
		switch v {
		case 21.5:
			n++
		case 22.5:
			t.Error("a reading of another device is in the hub")
		}
	}
	if n != 1 {
		t.Errorf("the reading is in the hub %d times", n)
	}
}
