package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator/archive"
	"github.com/fleetscore/fleetscore/internal/gateway/device"
	hubs "github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/tail"
	"github.com/fleetscore/fleetscore/internal/simulator"
)

// over is a way that sends readings by one HTTP request, whose body form makes.
func over(url, contentType, auth string, form func([]simulator.Reading) []byte) device.Way {
	return &requests{url: url, contentType: contentType, auth: auth, form: form}
}

type requests struct {
	url, contentType, auth string
	form                   func([]simulator.Reading) []byte
}

func (w *requests) Close() {}

func (w *requests) Send(ctx context.Context, list []simulator.Reading) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(w.form(list)))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", w.contentType)
	r.Header.Set("Authorization", w.auth)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		return 0, fmt.Errorf("%d %s, %v", resp.StatusCode, text, err)
	}
	return len(list), nil
}

// listed is a list of what one makes of each reading.
func listed(begin, between, end string, one func(simulator.Reading) string) func([]simulator.Reading) []byte {
	return func(list []simulator.Reading) []byte {
		parts := make([]string, len(list))
		for i, r := range list {
			parts[i] = one(r)
		}
		return []byte(begin + strings.Join(parts, between) + end)
	}
}

// everyWay are the ways in.
func everyWay(t *testing.T, address, mqtt, token string, brokers []string) map[string]device.Way {
	t.Helper()
	kafka, err := device.Kafka(brokers, "readings")
	if err != nil {
		t.Fatal(err)
	}
	object := func(r simulator.Reading) string { return strings.TrimSpace(string(r.AppendNDJSON(nil))) }
	base, bearer := "http://"+address, "Bearer "+token
	messages := base + "/api/v1/hubs/hub/messages"
	return map[string]device.Way{
		"ndjson": over(messages, "application/x-ndjson", bearer, listed("", "\n", "\n", object)),
		"influx": over(base+"/api/v2/write?precision=ms", "text/plain", "Token "+token, listed("", "\n", "\n", func(r simulator.Reading) string {
			return fmt.Sprintf("m,Device=%s,Tag=%s Value=%v %d", r.Device, r.Tag, r.Value, r.Time/1000)
		})),
		"events": over(messages, "application/cloudevents-batch+json", bearer, listed("[", ",", "]", func(r simulator.Reading) string {
			return fmt.Sprintf(`{"specversion":"1.0","id":"%v","source":"s","type":"t","data":%s}`, r.Value, object(r))
		})),
		"eventhubs": over(base+"/readings/messages", "application/json", bearer, listed("[", ",", "]", object)),
		"mqtt":      device.MQTT(device.MQTTConfig{Address: "127.0.0.1:" + mqtt, Topic: "devices/{Device}/{Tag}", Token: token}),
		"kafka":     kafka,
	}
}

// TestCrashWays kills the server at random, again and again, while readings come in by every way and are archived. Each acknowledged reading is
// in exactly one row, and the rows are those that a server makes that reads the log undisturbed. The archive has each reading of the log
// exactly once, and its rows are the same.
func TestCrashWays(t *testing.T) {
	t.Parallel()
	rounds := 3
	if n, err := strconv.Atoi(os.Getenv("FLEETSCORE_CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "readings"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	yaml, port := mqttYAML(t, 3*time.Second, 15*time.Second) // devices that send again are neither silent nor late
	key := filepath.Join(t.TempDir(), "send.key")
	if err := os.WriteFile(key, []byte("dGhlIGtleSBvZiB0aGUgcG9saWN5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml = strings.Replace(yaml, "own_key: Device, ", fmt.Sprintf("partitions: 3, archive: {every: 10s}, event_hubs: {name: readings, hosts: [fleet.servicebus.windows.net], policies: [{name: send, key_file: %q}]}, kafka: [{brokers: [%q], topic: readings}], ", key, broker.ListenAddrs()[0]), 1)
	p := startServer(t, yaml)
	p.listens(port)
	token, _ := p.deviceToken("plant")
	ways := everyWay(t, p.addr, port, token, broker.ListenAddrs())
	var wg sync.WaitGroup
	var stop atomic.Bool
	acknowledged, problem := map[string]*atomic.Int64{}, map[string]*atomic.Value{}
	var mu sync.Mutex // guards sent
	sent := map[string]int64{}
	for name, way := range ways {
		acknowledged[name], problem[name] = &atomic.Int64{}, &atomic.Value{}
		wg.Go(func() {
			defer way.Close()
			for n := 0; !stop.Load() && t.Context().Err() == nil; {
				list := make([]simulator.Reading, 1+n%17)
				for i := range list {
					list[i] = simulator.Reading{Device: name, Tag: strconv.Itoa(n % 5), Time: fleetscore.MicrosOf(time.Now().Truncate(time.Millisecond)), Value: float64(n)}
					n++
				}
				for rest := list; len(rest) > 0 && t.Context().Err() == nil; {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					done, err := way.Send(ctx, rest)
					cancel()
					rest = rest[done:]
					acknowledged[name].Add(int64(done))
					if err != nil {
						problem[name].Store(err.Error())
						pause(t.Context(), 50*time.Millisecond)
					}
				}
				mu.Lock()
				for _, r := range list {
					sent[fmt.Sprint(fleetscore.MicrosOf(r.Time.Time().Add(time.Second-1).Truncate(time.Second)), " ", r.Device, "/", r.Tag)]++
				}
				mu.Unlock()
				pause(t.Context(), 5*time.Millisecond)
			}
		})
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		before := p.archiveFiles()
		for name, n := range acknowledged {
			for target, end := n.Load()+int64(20+rnd.IntN(200)), time.Now().Add(60*time.Second); n.Load() < target; pause(t.Context(), time.Millisecond) {
				if time.Now().After(end) {
					stop.Store(true)
					t.Fatalf("by %s no more readings are taken: %v\n%s", name, problem[name].Load(), p.log)
				}
			}
		}
		if round%3 == 0 {
			p.until("the archive to write", func() bool { return p.archiveFiles() != before })
			pause(t.Context(), time.Duration(rnd.IntN(5))*time.Millisecond)
		} else {
			pause(t.Context(), time.Duration(rnd.IntN(100))*time.Millisecond) // any moment
		}
		p.kill()
		p.start()
	}
	stop.Store(true)
	wg.Wait()
	p.complete(sent)
	if diff := cmp.Diff(sent, p.readings()); diff != "" {
		t.Errorf("readings per window and sensor (-acknowledged +in rows):\n%s", diff)
	}
	var last fleetscore.Micros
	counts := map[string]int64{}
	for id := range sent {
		last = max(last, rowTime(id))
	}
	for name, n := range acknowledged {
		counts[name] = n.Load()
	}
	text, _ := json.Marshal(counts)
	t.Logf("%d kills, acknowledged readings %s", rounds, text)
	disturbed := p.datasetRows("readings", last)
	p.checkArchive(disturbed, last)
	p.stop()
	calm := newServer(t, yaml, func(dir string) {
		if err := os.CopyFS(filepath.Join(dir, "data", "hub"), os.DirFS(filepath.Join(p.dir, "data", "hub"))); err != nil {
			t.Fatal(err)
		}
	})
	calm.start()
	calm.complete(sent)
	if diff := cmp.Diff(calm.datasetRows("readings", last), disturbed); diff != "" {
		t.Errorf("rows (-undisturbed +killed):\n%s", diff)
	}
}

// archiveFiles are the names of what lies in the folder of the archive, also of files that aren't finished.
func (p *process) archiveFiles() string {
	var names []string
	_ = filepath.WalkDir(filepath.Join(p.dir, "data", "store", "archive"), func(path string, _ os.DirEntry, _ error) error { // files come and go
		names = append(names, path)
		return nil
	})
	return strings.Join(names, "\n")
}

// checkArchive compares the archive with the log, and the rows that are made of the archive with those of the dataset readings up to a time.
func (p *process) checkArchive(rows []string, last fleetscore.Micros) {
	t, server := p.t, "--server=http://"+p.addr
	t.Helper()
	code, stdout, stderr := command(t, "hub", "tail", "--from", "2000-01-01T00:00:00Z", "-o", "jsonl", server)
	if code != 0 {
		t.Fatalf("hub tail: exit %d\n%s", code, stderr)
	}
	log := map[string]int{}
	for line := range strings.Lines(stdout) {
		var r tail.Reading
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		log[fmt.Sprint(r.Offset, " ", strings.Join(r.Key, "/"), " ", fleetscore.MicrosOf(r.Time), " ", r.Values["Value"])]++
	}
	p.until("the archive to have all readings", func() bool { return p.archived() >= strings.Count(stdout, "\n") })
	archived := map[string]int{}
	hub := fleetscore.HubConfig{Key: []string{"Device", "Tag"}, Time: "TS", Archive: &fleetscore.ArchiveConfig{Namespace: "fleetscore"}}
	err := archive.Read(t.Context(), p.bucket(), hub, math.MinInt64, func(m hubs.Message) error {
		at := slices.IndexFunc(m.Readings.Columns, func(c fleetscore.ReadingColumn) bool { return c.Name == "Value" })
		for i, k := range m.Readings.KeyIndex {
			archived[fmt.Sprint(m.Seq, " ", strings.Join(m.Readings.Keys[k].Values(), "/"), " ", m.Readings.Times[i], " ", m.Readings.Columns[at].Numbers[i])]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(log, archived); d != "" {
		t.Errorf("readings (-log +archive):\n%.4000s", d)
	}
	if code, stdout, stderr := command(t, "query", "replay", "readings", "--archive", "--into", "again", "--from", "2000-01-01T00:00:00Z", "--to", last.Time().UTC().Format(time.RFC3339), server); code != 0 {
		t.Fatalf("query replay: exit %d\n%s%s", code, stdout, stderr)
	}
	if d := cmp.Diff(rows, p.datasetRows("again", last)); d != "" {
		t.Errorf("rows (-of the stream +of the archive):\n%.4000s", d)
	}
}
