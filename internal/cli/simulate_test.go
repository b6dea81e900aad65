package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/api"
)

// faulty are the flags of a way that goes wrong in all ways.
var faulty = []string{"--seed", "3", "--interval", "100ms", "--dropped", "0.05", "--duplicates", "0.1", "--late", "0.1", "--late-by", "12s", "--skewed", "0.3", "--skew-by", "-1m", "-o", "json"}

// simulatedBy runs "simulate" with these flags and returns what it says.
func simulatedBy(t *testing.T, args ...string) (made simulated) {
	t.Helper()
	code, out, stderr := command(t, append(append([]string{"simulate"}, faulty...), args...)...)
	if err := json.Unmarshal([]byte(out), &made); err != nil || code != 0 {
		t.Fatalf("%q: exit %d, %v\n%s%s", args, code, err, out, stderr)
	}
	if made.Dropped == 0 || made.Duplicates == 0 || made.Late == 0 || made.Skewed == 0 || made.Waiting != 0 || made.Acknowledged != made.Sent || made.Sent != made.Good+made.Duplicates+made.Late+made.Skewed {
		t.Fatalf("%q: it says %+v", args, made)
	}
	return made
}

// TestSimulatedTraffic: through each way in, what the simulation says that it injected is what the query finds: readings in
// rows, repeats, late ones.
func TestSimulatedTraffic(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "readings"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	for _, way := range []string{"http", "mqtt", "kafka"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			yaml, port := mqttYAML(t, 2*time.Second, 2*time.Second)
			yaml = strings.Replace(yaml, "own_key: Device, ", "", 1)
			if way == "kafka" {
				yaml = strings.Replace(yaml, "mqtt: {", fmt.Sprintf("kafka: [{brokers: [%q], topic: readings}], mqtt: {", broker.ListenAddrs()[0]), 1)
			}
			p := startServer(t, yaml)
			p.listens(port)
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte(p.token()), 0o600); err != nil {
				t.Fatal(err)
			}
			made := simulatedBy(t, append(map[string][]string{"http": {"--burst", "1s"}, "mqtt": {"--mqtt", "127.0.0.1:" + port}, "kafka": {"--kafka", broker.ListenAddrs()[0]}}[way], "--for", "20s", "--server=http://"+p.addr, "--token-file", token)...)
			var q aggregator.PartitionStatus
			found := func() bool {
				var queries api.List[aggregator.Status]
				if err := p.Get(t.Context(), "/queries", nil, &queries); err != nil {
					t.Fatal(err)
				}
				q = queries.Items[0].Partitions[0]
				return q.Counted+q.Repeats+q.Late >= made.Sent
			}
			for end := time.Now().Add(60 * time.Second); !found(); time.Sleep(100 * time.Millisecond) { // a page of the API, not an event
				if time.Now().After(end) {
					break
				}
			}
			// While no other reading has come, one isn't late. So the first readings of the device whose clock is behind, one of
			// each of its sensors, may count, if they are taken before those of the other devices.
			first := q.Counted - made.Good
			if first < 0 || first > 4 || q.Repeats != made.Duplicates || q.Late+first != made.Late+made.Skewed {
				t.Errorf("the simulation says %+v, the query %+v", made, q)
			}
			p.complete(map[string]int64{made.To.Format(time.RFC3339Nano) + " end": 0})
			if n := sum(p.readings()); n != q.Counted {
				t.Errorf("%d readings are in rows, want %d", n, q.Counted)
			}
		})
	}
}

// TestSimulatedFile: a file has the lines that the simulation says, and the same seed gives the same file.
func TestSimulatedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var texts []string
	for _, name := range []string{"a.csv", "b.csv"} {
		made := simulatedBy(t, "--from", "2026-11-23T00:00:00Z", "--to", "2026-11-23T00:01:00Z", "--out", filepath.Join(dir, name))
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if n := int64(strings.Count(string(text), "\n")) - 1; n != made.Sent || made.Made != 5*4*600 {
			t.Errorf("the file has %d lines; the simulation says %+v", n, made)
		}
		texts = append(texts, string(text))
	}
	if texts[0] != texts[1] {
		t.Error("the same seed gives another file")
	}
	for _, args := range []string{"--out x.csv --mqtt 127.0.0.1:1883", "--from 2026-11-23T00:00:00Z", "--mqtt 127.0.0.1:1 --kafka 127.0.0.1:2", "--mqtt nowhere", "--late 2 --out x.csv", "-o csv --out x.csv",
		"--late 0.1 --for 20s", "--late 0.1 --late-by 2h --out x.csv"} {
		if code, _, stderr := command(t, append([]string{"simulate"}, strings.Fields(args)...)...); code != exitUsage || strings.Contains(stderr, "defect") {
			t.Errorf("%s: exit %d\n%s", args, code, stderr)
		}
	}
}
