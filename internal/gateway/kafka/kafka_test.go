package kafka

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

var hubConfig = fleetscore.HubConfig{Key: []string{"Device", "Tag"}, Time: "TS", IdleAfter: fleetscore.Duration(400 * time.Millisecond)}

// running is a gateway with a reader, as a server has them.
type running struct {
	*Reader
	stop func()
	kept *rejects
}

// rejects are the records that a reader had kept.
type rejects struct {
	mu   sync.Mutex
	list []string
}

func (r *rejects) keep(list ...ledger.Rejected) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range list {
		r.list = append(r.list, fmt.Sprintf("%s %s %s: %.40s %q", x.Source, x.Topic, x.From, x.Reason, x.Text))
	}
}

func (r *rejects) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

func run(t *testing.T, h hub.Hub, k fleetscore.KafkaConfig, full func() string) *running {
	t.Helper()
	return runWith(t, h, k, full, Deps{})
}

func runWith(t *testing.T, h hub.Hub, k fleetscore.KafkaConfig, full func() string, deps Deps) *running {
	t.Helper()
	g, err := gateway.New(gateway.Config{Hub: hubConfig, Numbers: []string{"Value"}}, gateway.Deps{Hub: h, Full: full})
	if err != nil {
		t.Fatal(err)
	}
	var kept rejects
	deps.Gateway, deps.Now, deps.Reject = g, time.Now, kept.keep
	r, err := New(Config{Kafka: k, Hub: hubConfig}, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	gctx, gcancel := context.WithCancel(context.Background())
	wg.Go(func() { _ = g.Run(gctx) })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.Run(ctx)
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		<-ended
		gcancel()
		wg.Wait()
	})
	t.Cleanup(stop)
	return &running{r, stop, &kept}
}

// until waits for a status.
func (r *running) until(t *testing.T, what string, ok func(Topic) bool) Topic {
	t.Helper()
	for range 600 {
		if s := r.Status(); ok(s) {
			return s
		}
		time.Sleep(50 * time.Millisecond) // a status has no signal
	}
	t.Fatalf("%s: the status stays %+v", what, r.Status())
	return Topic{}
}

func cluster(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, *kgo.Client) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return c, cl
}

func topic(c *kfake.Cluster) fleetscore.KafkaConfig {
	return fleetscore.KafkaConfig{Brokers: c.ListenAddrs(), Topic: "readings", Group: "fleetscore", Start: "earliest", Format: "json"}
}

func produce(t *testing.T, cl *kgo.Client, partition int, values ...string) {
	t.Helper()
	for _, v := range values {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "readings", Partition: int32(partition), Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// stored lists the values in the hub in order, with how often each is there.
func stored(h *hubtest.Memory) []string {
	var out []string
	for p := range h.Partitions() {
		for _, m := range h.Messages(p) {
			if m.Tick {
				continue
			}
			r := m.Readings
			for i := range r.Times {
				line := strings.ReplaceAll(string(r.Keys[r.KeyIndex[i]]), fleetscore.KeySeparator, "/")
				for _, c := range r.Columns {
					if c.Numbers != nil {
						line += fmt.Sprintf(" %s=%v", c.Name, c.Numbers[i])
					} else {
						line += fmt.Sprintf(" %s=%q", c.Name, c.Strings[i])
					}
				}
				out = append(out, line)
			}
		}
	}
	slices.Sort(out)
	return out
}

func reading(tag, value int) string {
	return fmt.Sprintf(`{"TS":"2026-11-23T10:00:05Z","Device":"a","Tag":"%d","Value":%d}`, tag, value)
}

// TestReads: every form of record is taken, what can't be is counted, and a reader that starts
// again takes what came meanwhile and nothing twice. New partitions are found.
func TestReads(t *testing.T) {
	t.Parallel()
	c, cl := cluster(t, kfake.SeedTopics(2, "readings"))
	h := hubtest.New(3)
	produce(t, cl, 0, reading(1, 1), "["+reading(2, 2)+",\n"+reading(3, 3)+"]", reading(4, 4)+"\n"+reading(5, 5), "", "{", "[]", "[1]", "["+reading(6, 6)+",")
	produce(t, cl, 1, "{\n\"TS\":\"2026-11-23T10:00:05Z\",\n\"Device\":\"a\",\"Tag\":7,\"Value\":7}")
	want := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf("a/%d Value=%d", i+1, i+1))
		}
		slices.Sort(out)
		return out
	}
	all := func(n int64) func(Topic) bool {
		return func(s Topic) bool {
			return s.State == Reading && s.Lag == 0 && s.Accepted == n && s.Partitions[0].Next == 8
		}
	}
	r := run(t, h, topic(c), nil)
	s := r.until(t, "first start", all(7))
	if diff := cmp.Diff(want(7), stored(h)); diff != "" {
		t.Fatalf("(-sent +stored):\n%s", diff)
	}
	if s.Rejected != 3 || s.Problem != "" || len(s.Partitions) != 2 || s.Partitions[0].Next != 8 {
		t.Errorf("status %+v, want 3 rejected and offset 8", s)
	}
	kept := []string{`kafka readings partition 0, offset 4: line 1: not a JSON object: the text ends "{"`, `kafka readings partition 0, offset 6: line 1: not a JSON object "[1]"`,
		fmt.Sprintf(`kafka readings partition 0, offset 7: line 2: not a JSON object: invalid chara %q`, "["+reading(6, 6)+",")}
	if diff := cmp.Diff(kept, r.kept.all()); diff != "" {
		t.Errorf("kept as rejected (-want +got):\n%s", diff)
	}
	r.stop()
	produce(t, cl, 1, reading(8, 8))
	r = run(t, h, topic(c), nil)
	r.until(t, "second start", all(1))
	adm := kadm.NewClient(cl)
	if _, err := adm.CreatePartitions(t.Context(), 1, "readings"); err != nil {
		t.Fatal(err)
	}
	r.until(t, "new partition", func(s Topic) bool { return len(s.Partitions) == 3 })
	again, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	produce(t, again, 2, reading(9, 9))
	r.until(t, "reading of the new partition", all(2))
	if diff := cmp.Diff(want(9), stored(h)); diff != "" {
		t.Errorf("(-sent +stored):\n%s", diff)
	}
	for range 200 { // the group learns it within seconds
		if o, err := adm.FetchOffsetsForTopics(t.Context(), "fleetscore", "readings"); err == nil {
			if p, _ := o.Lookup("readings", 1); p.At == 2 {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the group's offset of partition 1 isn't 2")
}

// TestCSV: rows have the columns of the configuration.
func TestCSV(t *testing.T) {
	t.Parallel()
	c, cl := cluster(t, kfake.SeedTopics(1, "readings"))
	h := hubtest.New(1)
	k := topic(c)
	k.Format, k.Columns = "csv", []string{"TS", "Device", "Tag", "Value", "Unit"}
	produce(t, cl, 0, "2026-11-23T10:00:05Z,a,01,-2.5e0,\"bar, \"\"abs\"\"\"\r\n2026-11-23T10:00:06Z,a,2,4,7\n", "2026-11-23T10:00:05Z,a,1", "2026-11-23T10:00:05Z,a,1,x,\"y", "1763892005000,b,3,,")
	r := run(t, h, k, nil)
	s := r.until(t, "rows", func(s Topic) bool { return s.Accepted == 3 && s.Rejected == 2 })
	got := strings.Join(stored(h), "\n")
	for _, want := range []string{`a/01 Value=-2.5`, `Unit="bar, \"abs\""`, "a/2 Value=4", "Unit=7", "b/3"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s isn't in\n%s\n%+v", want, got, s)
		}
	}
}

// TestTroubles: each trouble is named with what to do, and once it is over readings come in.
func TestTroubles(t *testing.T) {
	t.Parallel()
	says := func(want ...string) func(Topic) bool {
		return func(s Topic) bool {
			return s.State == Waiting && !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(s.Problem, w) })
		}
	}
	works := func(s Topic) bool { return s.State == Reading && s.Problem == "" && s.Accepted == 1 }
	t.Run("unknown topic", func(t *testing.T) {
		t.Parallel()
		c, cl := cluster(t)
		r := run(t, hubtest.New(1), topic(c), nil)
		r.until(t, "no topic", says("no topic readings", "create the topic"))
		if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, "readings"); err != nil {
			t.Fatal(err)
		}
		cl.ForceMetadataRefresh()
		produce(t, cl, 0, reading(1, 1))
		r.until(t, "the topic is there", works)
	})
	t.Run("password", func(t *testing.T) {
		t.Parallel()
		for mechanism, name := range map[string]string{"PLAIN": "plain", "SCRAM-SHA-256": "scram-sha-256", "SCRAM-SHA-512": "scram-sha-512"} {
			c, _ := cluster(t, kfake.SeedTopics(1, "readings"), kfake.EnableSASL(), kfake.Superuser(mechanism, "$ConnectionString", "right;x=y"))
			k := topic(c)
			file := filepath.Join(t.TempDir(), "password")
			write := func(text string) {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("wrong")
			k.SASL = &fleetscore.SASLConfig{Mechanism: name, User: "$ConnectionString", PasswordFile: file}
			r := run(t, hubtest.New(1), k, nil)
			r.until(t, "wrong password of "+mechanism, says("password", "hub.kafka.sasl"))
			write("right;x=y\n")
			r.until(t, "right password of "+mechanism, func(s Topic) bool { return s.State == Reading })
		}
	})
	t.Run("unreachable", func(t *testing.T) {
		t.Parallel()
		c, _ := cluster(t, kfake.SeedTopics(1, "readings"))
		k := topic(c)
		c.Close()
		r := run(t, hubtest.New(1), k, nil)
		r.until(t, "no broker", says("can't be reached", "hub.kafka.brokers"))
	})
	t.Run("full hub", func(t *testing.T) {
		t.Parallel()
		c, cl := cluster(t, kfake.SeedTopics(1, "readings"))
		produce(t, cl, 0, reading(1, 1))
		var full atomic.Bool
		full.Store(true)
		r := run(t, hubtest.New(1), topic(c), func() string {
			if full.Load() {
				return "too many readings wait"
			}
			return ""
		})
		r.until(t, "a full hub", says("too many readings wait"))
		full.Store(false)
		r.until(t, "room", works)
	})
	t.Run("failing hub", func(t *testing.T) {
		t.Parallel()
		c, cl := cluster(t, kfake.SeedTopics(1, "readings"))
		h := hubtest.New(2)
		r := run(t, h, topic(c), nil)
		r.until(t, "the topic is read", func(s Topic) bool { return s.State == Reading })
		h.FailAppends(fleetscore.Errorf(fleetscore.Exhausted, "append to hub", "", "the disk is full"))
		produce(t, cl, 0, reading(1, 1))
		r.until(t, "a full disk", says("the disk is full"))
		h.FailAppends(nil)
		r.until(t, "room", works)
		if got := stored(h); len(got) != 1 {
			t.Errorf("stored %q", got)
		}
	})
	t.Run("a topic that may be described and not read", func(t *testing.T) {
		t.Parallel()
		c, cl := cluster(t, kfake.SeedTopics(1, "readings"))
		produce(t, cl, 0, reading(1, 1))
		var tries atomic.Int64
		c.ControlKey(int16(kmsg.Fetch), func(k kmsg.Request) (kmsg.Response, error, bool) {
			if tries.Add(1) > 3 {
				return nil, nil, false
			}
			c.KeepControl()
			out := k.ResponseKind().(*kmsg.FetchResponse)
			for _, t := range k.(*kmsg.FetchRequest).Topics {
				topic := kmsg.NewFetchResponseTopic()
				topic.Topic, topic.TopicID = t.Topic, t.TopicID
				for _, p := range t.Partitions {
					partition := kmsg.NewFetchResponseTopicPartition()
					partition.Partition, partition.ErrorCode = p.Partition, kerr.TopicAuthorizationFailed.Code
					topic.Partitions = append(topic.Partitions, partition)
				}
				out.Topics = append(out.Topics, topic)
			}
			return out, nil, true
		})
		var log bytes.Buffer
		r := runWith(t, hubtest.New(1), topic(c), nil, Deps{Log: slog.New(slog.NewTextHandler(&log, nil))})
		r.until(t, "the reading", func(s Topic) bool { return s.Accepted == 1 })
		r.stop()
		for _, text := range []string{`"the topic is read"`, "the topic can't be read", "the topic is read again"} { // however often it was tried
			if n := strings.Count(log.String(), text); n != 1 {
				t.Errorf("%s is %d times in the log:\n%s", text, n, &log)
			}
		}
	})
	t.Run("another topic of that name", func(t *testing.T) {
		t.Parallel()
		c, cl := cluster(t, kfake.SeedTopics(1, "readings"))
		h := hubtest.New(1)
		produce(t, cl, 0, reading(1, 1), reading(2, 2))
		r := run(t, h, topic(c), nil)
		r.until(t, "two readings", func(s Topic) bool { return s.Accepted == 2 && s.Lag == 0 })
		r.stop()
		adm := kadm.NewClient(cl)
		if _, err := adm.DeleteTopics(t.Context(), "readings"); err != nil {
			t.Fatal(err)
		}
		if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "readings"); err != nil {
			t.Fatal(err)
		}
		again, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...)) // the other one knows the deleted topic
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		offsets := kadm.Offsets{} // as the group has it where topics don't take their offsets with them
		offsets.AddOffset("readings", 0, 2, -1)
		if err := kadm.NewClient(again).CommitAllOffsets(t.Context(), "fleetscore", offsets); err != nil {
			t.Fatal(err)
		}
		r = run(t, h, topic(c), nil)
		r.until(t, "the topic begins anew", says("ends at offset 0, but it was read up to 2", "another name in hub.kafka.group"))
	})
}

// TestTicks: a partition that was read to its end has ticks; one whose records can't be read
// has none, so that its silence completes nothing.
func TestTicks(t *testing.T) {
	t.Parallel()
	c, cl := cluster(t, kfake.SeedTopics(1, "readings"))
	h := hubtest.New(1)
	produce(t, cl, 0, reading(1, 1))
	ticks := func() (n int) {
		for _, m := range h.Messages(0) {
			if m.Tick && m.Source == "kafka/fleetscore/readings/0" {
				n++
			}
		}
		return n
	}
	r := run(t, h, topic(c), nil)
	r.until(t, "a tick", func(Topic) bool { return ticks() > 0 })
	c.Close()
	r.until(t, "the loss of the broker", func(s Topic) bool { return s.State == Waiting })
	before := ticks()
	time.Sleep(5 * hubConfig.IdleAfter.D())
	if now := ticks(); now != before {
		t.Errorf("%d ticks came while the broker was away", now-before)
	}
}

// FuzzRecords: whatever a record holds, it becomes as many lines as are counted.
func FuzzRecords(f *testing.F) {
	for _, s := range []string{"", "{}", "[{},{}]", "{}\n{}", "[\n", "[[1]]", "]", "[{}]\n[{}]", "{\"a\":\"\\u12\"}\n", "1,2\n\"", "\"a\"\"b\",c\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		count := func(what string, l *gateway.Lines) {
			if n := strings.Count(string(l.Text), "\n"); n != l.Len() || n > 0 && l.Text[len(l.Text)-1] != '\n' {
				t.Errorf("%s: %q became %d lines, said to be %d: %q", what, value, n, l.Len(), l.Text)
			}
		}
		var text, rows, points gateway.Lines
		addJSON(&text, value)
		count("JSON", &text)
		rows.CSV(value, []string{"TS", "Device"}, hubConfig)
		count("CSV", &rows)
		points.Influx(value, 1, hubConfig)
		count("line protocol", &points)
	})
}
