package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/gateway/kafka"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/testkit/kafkatest"
)

// kafkaYAML reads one topic as an Event Hubs namespace is read, with JSON, and one with
// SCRAM and CSV.
const kafkaYAML = `
hub:
  key: [Device, Tag]
  time: TS
  partitions: 3
  idle_after: 5s
  disorder: 1m
  kafka:
    - {brokers: ["%[1]s"], topic: readings, ca: %[2]s, sasl: {user: "%[3]s", password_file: %[4]s/plain}}
    - {brokers: ["%[1]s"], topic: rows, format: csv, columns: [TS, Device, Tag, Value], ca: %[2]s, sasl: {mechanism: scram-sha-256, user: "%[5]s", password_file: %[4]s/scram}}
queries:
  readings: {sql: "SELECT System.Timestamp() AS TS, Device, Tag, COUNT(*) AS N, AVG(Value) AS Value INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, Tag, TumblingWindow(second, 1)", cut: 1s}
`

// TestKafkaKilled: a real broker's topics are read while the server and the broker are killed
// again and again. Each record that the broker acknowledged is in the hub once, and in
// one row. A wrong password is named before.
func TestKafkaKilled(t *testing.T) {
	t.Parallel()
	b := kafkatest.Start(t)
	secrets := t.TempDir()
	for name, password := range map[string]string{"plain": "wrong", "scram": kafkatest.ScramPassword} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	producer, err := kgo.NewClient(kgo.SeedBrokers(b.Address), kgo.ProducerLinger(0))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	if _, err := kadm.NewClient(producer).CreateTopic(t.Context(), 4, 1, nil, "readings"); err != nil {
		t.Fatal(err)
	}
	p := startServer(t, fmt.Sprintf(kafkaYAML, b.Secure, b.CA, kafkatest.User, secrets, kafkatest.ScramUser))
	p.topic(0, func(k kafka.Topic) bool { return strings.Contains(k.Problem, "refuse the user or the password") })
	p.topic(1, func(k kafka.Topic) bool { return strings.Contains(k.Problem, "no topic rows") })
	if err := os.WriteFile(filepath.Join(secrets, "plain"), []byte(kafkatest.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := kadm.NewClient(producer).CreateTopic(t.Context(), 2, 1, nil, "rows"); err != nil {
		t.Fatal(err)
	}

	const count = 6000
	sent := map[string]int64{}
	produced := make(chan error, 1)
	progress := make(chan int, count)
	go func() {
		defer close(progress)
		produced <- func() error {
			for i := range count {
				at := time.Now().UTC()
				device := fmt.Sprintf("press-%d", i%7)
				r := &kgo.Record{Topic: "readings", Key: []byte(device), Value: fmt.Appendf(nil, `{"TS":"%s","Device":%q,"Tag":"1","Value":%d}`, at.Format(time.RFC3339Nano), device, i)}
				if i%3 == 0 {
					r.Topic, r.Value = "rows", fmt.Appendf(nil, "%s,%s,1,%d", at.Format(time.RFC3339Nano), device, i)
				}
				if err := producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
					return err
				}
				sent[fmt.Sprint(fleetscore.MicrosOf(at.Add(time.Second-1).Truncate(time.Second)), " ", device, "/1")]++
				progress <- i
			}
			return nil
		}()
	}()
	kills := 0
	for i := range progress {
		switch {
		case i == count/2:
			b.Kill()
			b.Again()
		case i%1000 == 500:
			p.kill()
			p.start()
			kills++
		}
	}
	if err := <-produced; err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		p.topic(i, func(k kafka.Topic) bool { return k.State == kafka.Reading && k.Lag == 0 })
	}
	code, shown, stderr := command(t, "hub", "show", "--server=http://"+p.addr)
	if code != 0 || !strings.Contains(shown, "kafka readings") || !strings.Contains(shown, "reading") {
		t.Errorf("hub show: exit %d\n%s\n%s", code, shown, stderr)
	}
	p.complete(sent)
	if diff := cmp.Diff(sent, p.readings()); diff != "" {
		t.Errorf("readings per window and sensor (-produced +in rows):\n%s", diff)
	}
	p.stop()
	seen := map[float64]int{}
	for _, v := range hubValues(t, filepath.Join(p.dir, "data", "hub")) {
		seen[v]++
	}
	for i := range count {
		if n := seen[float64(i)]; n != 1 {
			t.Fatalf("record %d is in the hub %d times after %d kills", i, n, kills)
		}
	}
}

// topic waits until a topic is read as ok wants it.
func (p *process) topic(i int, ok func(kafka.Topic) bool) {
	p.t.Helper()
	var h api.Hub
	var err error
	for range 1200 {
		if err = p.Get(p.t.Context(), "/hub", nil, &h); err == nil && i < len(h.Kafka) && ok(h.Kafka[i]) {
			return
		}
		time.Sleep(50 * time.Millisecond) // a page of the API, not an event
	}
	p.t.Fatalf("topic %d stays as %+v, %v\n%s", i, h.Kafka, err, p.log)
}

// hubValues lists the values of the column Value of all readings in a hub's folder.
func hubValues(t *testing.T, dir string) (values []float64) {
	t.Helper()
	h, err := hub.Open(t.Context(), hub.Config{Dir: dir, Partitions: 3, Retention: 24 * time.Hour}, hub.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	stats, err := h.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	for i, s := range stats {
		if s.Last == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := h.Read(ctx, i, 0, func(m hub.Message) error {
			if m.Readings != nil {
				for _, c := range m.Readings.Columns {
					if c.Name == "Value" {
						values = append(values, c.Numbers...)
					}
				}
			}
			if m.Seq >= s.Last {
				return enough
			}
			return nil
		})
		cancel()
		if !errors.Is(err, enough) {
			t.Fatal(err)
		}
	}
	return values
}
