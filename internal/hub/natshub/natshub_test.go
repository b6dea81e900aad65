package natshub_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/hub/natshub"
	"github.com/fleetscore/fleetscore/internal/testkit/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names makes the hubs of tests that share servers differ.
var names atomic.Int64

func openHub(t *testing.T, cfg natshub.Config, deps hub.Deps) hub.Hub {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = fmt.Sprintf("test%d", names.Add(1))
	}
	h, err := natshub.Open(t.Context(), cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() }) // most tests closed it before
	return h
}

// streams connects to the servers as an operator would.
func streams(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	c, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func mustAppend(t *testing.T, h hub.Hub, arrived fleetscore.Micros, r ...*fleetscore.Readings) uint64 {
	t.Helper()
	seq, err := h.Append(t.Context(), 0, hubtest.At(arrived), r...)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return seq
}

// eventually waits until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after 30 s", what)
		}
	}
}

func TestHub(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	hubtest.Run(t, func(t *testing.T) hub.Hub {
		return openHub(t, natshub.Config{URL: s.URL(), Partitions: 3, Replicas: 1}, hub.Deps{})
	})
}

func TestRetentionBySize(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	hubtest.RunRetention(t, func(t *testing.T, size int64, deps hub.Deps) hub.Hub {
		return openHub(t, natshub.Config{URL: s.URL(), Partitions: 3, Replicas: 1, Retention: time.Second, Size: size}, deps)
	})
}

// TestReopen: a hub that is opened again, by this process or another, is the same hub,
// and what each opening wrote is known.
func TestReopen(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	cfg := natshub.Config{URL: s.URL(), Name: "reopen", Replicas: 1}
	a, b := openHub(t, cfg, hub.Deps{}), openHub(t, cfg, hub.Deps{})
	for i := range fleetscore.Micros(6) {
		mustAppend(t, []hub.Hub{a, b}[i%2], i, nil)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	c := openHub(t, cfg, hub.Deps{})
	mustAppend(t, c, 6, nil)
	if a.ID() != b.ID() || a.ID() != c.ID() {
		t.Errorf("ids %d, %d, %d of one hub", a.ID(), b.ID(), c.ID())
	}
	got, err := hubtest.ReadN(t.Context(), c, 0, 0, 7)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range got {
		same := got[i%2]
		if i == 6 {
			same = m
		}
		if m.Arrived != fleetscore.Micros(i) || m.Epoch != same.Epoch || m.Epoch == got[(i+1)%2].Epoch {
			t.Errorf("message %d arrived at %d, epoch %x", m.Seq, m.Arrived, m.Epoch)
		}
	}
	for i, want := range []uint64{5, 6} {
		if last, ok, err := c.Reaches(t.Context(), 0, got[i].Epoch); err != nil || !ok || last != want {
			t.Errorf("epoch %d reaches %d, %v, %v; want %d", i, last, ok, err, want)
		}
	}
}

// TestLargeReadings: readings that don't fit into a message of the servers are divided,
// and a reading that doesn't fit alone is refused.
func TestLargeReadings(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{MaxPayload: 64 << 10})
	h := openHub(t, natshub.Config{URL: s.URL(), Replicas: 1}, hub.Deps{})
	want := hubtest.Batch(1, 40_000)
	want.IDs = make([]string, want.Len())
	for i := range want.IDs {
		want.IDs[i] = fmt.Sprint("id", i)
	}
	last := mustAppend(t, h, 1, want)
	if last < 4 {
		t.Errorf("%d readings lie in %d messages of at most 64 KB", want.Len(), last)
	}
	list, err := hubtest.ReadN(t.Context(), h, 0, 0, int(last))
	if err != nil {
		t.Fatal(err)
	}
	type reading struct {
		Key   fleetscore.Key
		Time  fleetscore.Micros
		ID    string
		Value float64
		Unit  string
		There bool
	}
	flat := func(list ...*fleetscore.Readings) (out []reading) {
		for _, r := range list {
			for i := range r.Times {
				out = append(out, reading{r.Keys[r.KeyIndex[i]], r.Times[i], r.IDs[i], r.Columns[0].Numbers[i], r.Columns[1].Strings[i], r.Columns[1].Present[i]})
			}
		}
		return out
	}
	var got []*fleetscore.Readings
	for _, m := range list {
		got = append(got, m.Readings)
	}
	if d := cmp.Diff(flat(want), flat(got...), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("readings (-want +got):\n%.2000s", d)
	}
	huge := hubtest.Batch(1, 1)
	huge.IDs = []string{strings.Repeat("x", 70<<10)}
	if _, err := h.Append(t.Context(), 0, hubtest.At(2), huge); !fleetscore.Invalid.Is(err) || !strings.Contains(fmt.Sprintf("%+v", err), "max_payload") && !strings.Contains(err.Error(), "message of the NATS servers") {
		t.Errorf("a reading of 70 KB: %v", err)
	}
}

// TestRefusals: what makes a hub impossible is said when it is opened.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{User: "fleet", Password: "secret"})
	without := natstest.Start(t, natstest.Options{NoJetStream: true})
	small := natstest.Start(t, natstest.Options{MaxPayload: 4096})
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "credentials")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := natshub.Config{URL: s.URL(), Name: "some", Replicas: 1, Partitions: 2, Credentials: file("fleet:secret\n")}
	h := openHub(t, good, hub.Deps{})
	mustAppend(t, h, 1, nil)
	c, err := nats.Connect(s.URL(), nats.UserInfo("fleet", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "theirs-000", Subjects: []string{"theirs.>"}}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*natshub.Config)
		kind   fleetscore.Kind
		want   string
	}{
		{"nobody there", func(c *natshub.Config) { c.URL = "nats://127.0.0.1:1" }, fleetscore.Unavailable, "no NATS server answers"},
		{"no credentials", func(c *natshub.Config) { c.Credentials = "" }, fleetscore.Invalid, "refuses this user"},
		{"wrong password", func(c *natshub.Config) { c.Credentials = file("fleet:wrong") }, fleetscore.Invalid, "refuses this user"},
		{"no file", func(c *natshub.Config) { c.Credentials = "/none" }, fleetscore.Invalid, "can't be read"},
		{"empty file", func(c *natshub.Config) { c.Credentials = file("\n") }, fleetscore.Invalid, "no credentials"},
		{"broken seed", func(c *natshub.Config) { c.Credentials = file("SU" + strings.Repeat("A", 56)) }, fleetscore.Invalid, "nkey"},
		{"TLS without TLS", func(c *natshub.Config) { c.URL = strings.Replace(c.URL, "nats:", "tls:", 1) }, fleetscore.Invalid, "TLS"},
		{"no JetStream", func(c *natshub.Config) { c.URL = without.URL() }, fleetscore.Unavailable, "JetStream"},
		{"small messages", func(c *natshub.Config) { c.URL = small.URL() }, fleetscore.Invalid, "at most 4096 bytes"},
		{"no cluster", func(c *natshub.Config) { c.Name, c.Replicas = "copies", 3 }, fleetscore.Invalid, "can't keep 3 copies"},
		{"other partitions", func(c *natshub.Config) { c.Partitions = 3 }, fleetscore.Conflict, "in 2 partitions, not 3"},
		{"fewer partitions", func(c *natshub.Config) { c.Partitions = 1 }, fleetscore.Conflict, "in 2 partitions, not 1"},
		{"foreign stream", func(c *natshub.Config) { c.Name = "theirs" }, fleetscore.Conflict, "belongs to something else"},
		{"no address", func(c *natshub.Config) { c.URL = "" }, fleetscore.Invalid, "not possible"},
	} {
		cfg := good
		tt.change(&cfg)
		h, err := natshub.Open(t.Context(), cfg, hub.Deps{})
		if !tt.kind.Is(err) || !strings.Contains(fmt.Sprint(err), tt.want) || strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("%s: %v, want kind %s with %q", tt.name, err, tt.kind, tt.want)
		}
		if err == nil {
			_ = h.Close() // nothing was appended
		}
	}
}

// TestPermissions: what the guide tells to allow is enough.
func TestPermissions(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{User: "fleet", Password: "secret", Publish: []string{"fleetscore.>", "$JS.API.>"}, Subscribe: []string{"_INBOX.>"}})
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("fleet:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := openHub(t, natshub.Config{URL: s.URL(), Name: "fleetscore", Replicas: 1, Credentials: file, Retention: time.Second},
		hub.Deps{Now: func() time.Time { return time.Now().Add(time.Hour) }, Needed: func(int) uint64 { return 3 }})
	at := fleetscore.MicrosOf(time.Now())
	for range 4 {
		mustAppend(t, h, at, nil)
	}
	eventually(t, "old messages are removed", func() bool {
		stats, err := h.Stats(t.Context())
		return err == nil && stats[0].First == 3
	})
	if got, err := hubtest.ReadN(t.Context(), h, 0, 0, 2); err != nil || got[1].Seq != 4 {
		t.Errorf("read %v, %v", got, err)
	}
}

// TestCheckURL: secrets don't belong in the address.
func TestCheckURL(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"nats://a:4222", "tls://a.example.com:4222, nats://b:4222", "nats://127.0.0.1:1,nats://[::1]:2"} {
		if err := natshub.CheckURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a:4222", "http://a:4222", "nats://user:password@a:4222", "nats://token@a:4222", "nats://a:4222/path", "nats://a:4222?x=y", "nats://a,", "nats://"} {
		if err := natshub.CheckURL(bad); err == nil || strings.Contains(err.Error(), "password@") {
			t.Errorf("%s: %v, want an error without the secret", bad, err)
		}
	}
}

// TestFull: when a stream has its size, readings are refused and nothing is removed.
func TestFull(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	told := &hubtest.Health{}
	h := openHub(t, natshub.Config{URL: s.URL(), Replicas: 1, MaxBytes: 1 << 20}, hub.Deps{Health: told})
	var stored uint64
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		var seq uint64
		if seq, err = h.Append(t.Context(), 0, hubtest.At(1), hubtest.Batch(i, 10_000)); err == nil {
			stored = seq
		}
	}
	if !fleetscore.Exhausted.Is(err) || stored == 0 || !strings.Contains(told.Of("hub"), "can't be stored") {
		t.Errorf("after %d messages: %v, health %q", stored, err, told.Of("hub"))
	}
	if stats, err := h.Stats(t.Context()); err != nil || stats[0].First != 1 || stats[0].Last != stored {
		t.Errorf("%+v, %v; want messages 1 to %d", stats, err, stored)
	}
}

// TestRetention: messages go when they are old and nobody needs them.
func TestRetention(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	var needed atomic.Uint64
	start := time.Now()
	told := &hubtest.Health{}
	h := openHub(t, natshub.Config{URL: s.URL(), Name: "old", Replicas: 1, Retention: time.Second},
		hub.Deps{Health: told, Now: func() time.Time { return start.Add(time.Hour) }, Needed: func(int) uint64 { return needed.Load() }})
	idle := openHub(t, natshub.Config{URL: s.URL(), Name: "old", Replicas: 1, Retention: time.Second}, hub.Deps{}) // removes nothing
	for i := range 20 {
		at := fleetscore.MicrosOf(start.Add(time.Hour))
		if i < 15 {
			at = fleetscore.MicrosOf(start)
		}
		mustAppend(t, idle, at, hubtest.Batch(i, 10))
	}
	first := func() uint64 {
		stats, err := h.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return stats[0].First
	}
	needed.Store(8)
	eventually(t, "messages before the needed one are removed", func() bool { return first() == 8 })
	eventually(t, "a warning", func() bool {
		return strings.Contains(told.Of("hub retention"), "1 MB of readings are older than hub.retention")
	})
	needed.Store(100)
	eventually(t, "old messages are removed", func() bool { return first() == 16 })
	eventually(t, "the warning ends", func() bool { return told.Of("hub retention") == "" })
	needed.Store(0) // unknown
	got, err := hubtest.ReadN(t.Context(), h, 0, 3, 5)
	if err != nil || got[0].Seq != 16 || got[4].Seq != 20 {
		t.Errorf("messages %d to %d, %v; want 16 to 20", got[0].Seq, got[4].Seq, err)
	}
}

// TestDeleted: streams that somebody deletes are made anew, say so, and use no sequence
// twice.
func TestDeleted(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	told := &hubtest.Health{}
	h := openHub(t, natshub.Config{URL: s.URL(), Name: "gone", Replicas: 1}, hub.Deps{Health: told})
	id := h.ID()
	for i := range fleetscore.Micros(5) {
		mustAppend(t, h, i, nil)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	read := make(chan hub.Message)
	ended := make(chan error, 1)
	go func() {
		ended <- h.Read(ctx, 0, 0, func(m hub.Message) error {
			read <- m
			return nil
		})
		close(read)
	}()
	var epoch int64
	for range 5 {
		epoch = (<-read).Epoch
	}
	if err := streams(t, s.URL()).DeleteStream(t.Context(), "gone-000"); err != nil {
		t.Fatal(err)
	}
	if seq := mustAppend(t, h, 5, nil); seq != 6 || h.ID() != id {
		t.Errorf("the message after the loss is %d of hub %x, want 6 of %x", seq, h.ID(), id)
	}
	if m := <-read; m.Seq != 6 || m.Epoch == epoch {
		t.Errorf("read message %d of epoch %x after the loss, want message 6 of another epoch than %x", m.Seq, m.Epoch, epoch)
	}
	if _, ok, err := h.Reaches(t.Context(), 0, epoch); ok || err != nil {
		t.Errorf("the lost epoch is still known: %v", err)
	}
	if text := told.Of("hub log"); !strings.Contains(text, "was deleted") {
		t.Errorf("health says %q", text)
	}
	cancel()
	<-ended
}

// TestOpenedTogether: two servers that make a hub at the same time have the same one, and
// none of them takes it for a loss.
func TestOpenedTogether(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	for round := range 10 {
		var told [2]hubtest.Health
		var hubs [2]hub.Hub
		var all errgroup.Group
		for i := range hubs {
			all.Go(func() (err error) {
				hubs[i], err = natshub.Open(t.Context(), natshub.Config{URL: s.URL(), Name: fmt.Sprint("both", round), Replicas: 1, Partitions: 2}, hub.Deps{Health: &told[i]})
				return err
			})
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
		if hubs[0].ID() != hubs[1].ID() {
			t.Errorf("round %d: the hubs %x and %x", round, hubs[0].ID(), hubs[1].ID())
		}
		for i := range hubs {
			if text := told[i].Of("hub log"); text != "" {
				t.Errorf("round %d: server %d says %q", round, i, text)
			}
			if err := hubs[i].Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// errStoreFailed is what a NATS server answers that can't make a stream's files.
const errStoreFailed jetstream.ErrorCode = 10049

// TestOlderCopy: a stream that was replaced by an older copy is told from the one that
// was read, even after it has grown beyond the position.
func TestOlderCopy(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	told := &hubtest.Health{}
	h := openHub(t, natshub.Config{URL: s.URL(), Name: "copy", Replicas: 1}, hub.Deps{Health: told})
	for i := range fleetscore.Micros(6) {
		mustAppend(t, h, i, nil)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	read := make(chan hub.Message, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- h.Read(ctx, 0, 0, func(m hub.Message) error {
			read <- m
			return nil
		})
	}()
	var epoch int64
	for range 6 {
		epoch = (<-read).Epoch
	}
	js := streams(t, s.URL())
	old, err := js.Stream(t.Context(), "copy-000")
	if err != nil {
		t.Fatal(err)
	}
	var copies []*jetstream.RawStreamMsg
	for seq := range uint64(3) {
		m, err := old.GetMsg(t.Context(), seq+1)
		if err != nil {
			t.Fatal(err)
		}
		copies = append(copies, m)
	}
	cfg := old.CachedInfo().Config
	if err := js.DeleteStream(t.Context(), cfg.Name); err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateStream(t.Context(), cfg)
	for range 100 { // its files may be in use: by the deletion, or by a server that makes it as well
		var refused *jetstream.APIError
		if !errors.As(err, &refused) || refused.ErrorCode != errStoreFailed {
			break
		}
		time.Sleep(50 * time.Millisecond)
		_, err = js.CreateStream(t.Context(), cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range copies {
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: m.Subject, Header: nats.Header(m.Header), Data: m.Data}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; !fleetscore.Unavailable.Is(err) || ctx.Err() != nil {
		t.Errorf("the read goes on in another log: %v", err)
	}
	for i := range fleetscore.Micros(6) { // beyond the position
		mustAppend(t, h, 10+i, nil)
	}
	last, ok, err := h.Reaches(t.Context(), 0, epoch)
	if err != nil || !ok || last >= 6 {
		t.Errorf("the epoch of message 6 reaches message %d, %v, %v; want less, so that a query notices the loss", last, ok, err)
	}
	if text := told.Of("hub log"); !strings.Contains(text, "went back") {
		t.Errorf("health says %q", text)
	}
	stats, err := h.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := hubtest.ReadN(t.Context(), h, 0, 1, int(stats[0].Last))
	if err != nil {
		t.Fatal(err)
	}
	arrived := map[fleetscore.Micros]int{}
	for _, m := range got[3:] {
		if m.Epoch != epoch || m.Seq <= last {
			arrived[m.Arrived]++
		}
	}
	for i := range fleetscore.Micros(6) {
		if arrived[10+i] == 0 {
			t.Errorf("the message that arrived at %d is missing", 10+i)
		}
	}
}

// TestDamage: a message that isn't one of ours is skipped and told, and so are messages
// that somebody deletes.
func TestDamage(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, natstest.Options{})
	told := &hubtest.Health{}
	h := openHub(t, natshub.Config{URL: s.URL(), Name: "damage", Replicas: 1}, hub.Deps{Health: told})
	js := streams(t, s.URL())
	mustAppend(t, h, 1, nil)
	if _, err := js.Publish(t.Context(), "damage.000.junk", []byte("no message of a hub")); err != nil {
		t.Fatal(err)
	}
	for i := range fleetscore.Micros(3) {
		mustAppend(t, h, 3+i, nil)
	}
	stream, err := js.Stream(t.Context(), "damage-000")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing new is told
		got, err := hubtest.ReadN(t.Context(), h, 0, 0, 3)
		if err != nil || got[0].Seq != 1 || got[1].Seq != 3 || got[2].Seq != 5 {
			t.Errorf("read %v, %v; want messages 1, 3 and 5", got, err)
		}
	}
	stats, err := h.Stats(t.Context())
	if err != nil || len(stats[0].Damage) != 2 || stats[0].Damage[0].First != 4 || stats[0].Damage[1].First != 2 || stats[0].Last != 5 || stats[0].Messages != 3 {
		t.Errorf("%+v, %v; want the damage of messages 2 and 4", stats, err)
	}
	if text := told.Of("hub log"); strings.Count(text, "message 2 is lost") != 1 {
		t.Errorf("health says %q", text)
	}
}

// TestTLS: the connection is encrypted, and only a certificate that the named file signs
// is accepted.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	s := natstest.Start(t, natstest.Options{Certificate: cert, Key: key})
	cfg := natshub.Config{URL: strings.Replace(s.URL(), "nats:", "tls:", 1), Name: "tls", Replicas: 1, CA: cert}
	mustAppend(t, openHub(t, cfg, hub.Deps{}), 1, nil)
	cfg.CA, _ = certificate(t)
	if _, err := natshub.Open(t.Context(), cfg, hub.Deps{}); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("the certificate of somebody else: %v", err)
	}
}

// certificate makes a certificate for 127.0.0.1 that signs itself.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
