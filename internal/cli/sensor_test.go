package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/sensor"
)

// TestSensors: sensors whose clocks are off, that are silent or have the same value all the time are named, also after a
// restart; whether their readings count or not.
func TestSensors(t *testing.T) {
	t.Parallel()
	p := startServer(t, `
hub: {key: [Device, Tag], time: TS, disorder: 1s, idle_after: 2s}
queries:
  readings:
    cut: 1s
    sql: "SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, Tag, TumblingWindow(second, 1)"
`)
	server := "--server=http://" + p.addr
	send := func(device string, ago time.Duration, value float64) {
		t.Helper()
		p.line(fmt.Sprintf(`{"TS":"%s","Device":%q,"Tag":"4","Value":%v}`+"\n", time.Now().Add(-ago).UTC().Format("2006-01-02T15:04:05.000000Z"), device, value))
	}
	list := func(args ...string) (out map[string]sensor.Sensor) {
		t.Helper()
		code, text, stderr := command(t, append([]string{"sensor", "list", "-o", "json", server}, args...)...)
		var all []sensor.Sensor
		if err := json.Unmarshal([]byte(text), &all); err != nil || code != 0 {
			t.Fatalf("%q: exit %d, %v\n%s%s", args, code, err, text, stderr)
		}
		out = map[string]sensor.Sensor{}
		for _, s := range all {
			out[strings.Join(s.Key, ",")] = s
		}
		return out
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(100 * time.Millisecond) { // a page of the API, not an event
			if time.Now().After(end) {
				t.Fatalf("%s: %+v\n%s", what, list(), p.log)
			}
		}
	}
	send("quiet", 0, 7)
	n := 0.0
	until("the faults are named", func() bool {
		n++
		send("well", 0, n)
		send("flat", 0, 5)
		send("behind", time.Hour, n)
		send("ahead", -8*time.Second, n)
		skewed, flat, silent := list("--skewed=6s"), list("--flat=3s"), list("--silent", "3s")
		_, a := skewed["behind,4"]
		_, b := skewed["ahead,4"]
		_, c := flat["flat,4"]
		_, d := silent["quiet,4"]
		return a && b && c && d && len(skewed) == 2 && len(flat) == 1 && len(silent) == 1
	})
	all := list()
	if s := all["behind,4"]; *s.Skew < 3590 || *s.Skew > 3660 || s.Last != nil || s.Rows != 0 {
		t.Errorf("behind is %+v", s)
	}
	if s := all["ahead,4"]; *s.Skew > -6 || *s.Skew < -10 {
		t.Errorf("ahead is %+v", s)
	}
	if s := all["well,4"]; s.Skew != nil || s.Rows < 2 || *s.Silent > 60 || s.PerMinute == nil || *s.Values["Value"] < 2 {
		t.Errorf("well is %+v", s)
	}
	file := filepath.Join(p.dir, "data", "store", "data", "readings", "_sensors.bin")
	p.stop()
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the state isn't kept: %v", err)
	}
	before := all["quiet,4"]
	p.start()
	until("they are known after the restart", func() bool { return len(list()) == len(all) })
	if after := list()["quiet,4"]; !after.First.Equal(*before.First) || after.Rows != before.Rows {
		t.Errorf("after the restart quiet is %+v, before %+v", after, before)
	}
	if code, out, _ := command(t, "sensor", "show", "flat,4", server); code != 0 || !strings.Contains(out, "Value=5") {
		t.Errorf("show: exit %d\n%s", code, out)
	}
	if code, out, stderr := command(t, "sensor", "list", "--limit", "2", server); code != 0 || strings.Count(out, "\n") != 3 || !strings.Contains(stderr, "3 more sensors") {
		t.Errorf("two of them: exit %d\n%s%s", code, out, stderr)
	}
	for args, want := range map[string]int{"show nobody,4": 12, "show ,4": exitUsage, "list --silent soon": exitUsage, "list --flat=-1m": exitUsage, "list --limit -1": exitUsage, `show a"b`: exitUsage} {
		if code, out, stderr := command(t, append(append([]string{"sensor"}, strings.Fields(args)...), server)...); code != want || strings.Contains(stderr, "defect") {
			t.Errorf("%s: exit %d, want %d\n%s%s", args, code, want, out, stderr)
		}
	}
	if status, page := p.page("/sensors?show=skewed"); status != 200 || !strings.Contains(page, "behind/4") || strings.Contains(page, "well/4") {
		t.Errorf("the portal: %d\n%s", status, page)
	}
	if _, metrics := p.page("/metrics"); !strings.Contains(metrics, `fleetscore_sensor_sensors{dataset="readings",state="skewed"} 1`) {
		t.Errorf("the metrics lack the sensors that are skewed:\n%s", metrics)
	}
}
