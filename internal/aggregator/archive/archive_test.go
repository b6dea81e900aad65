package archive

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const minute = fleetscore.Micros(60e6)

var config = fleetscore.HubConfig{Key: []string{"Device", "Tag"}, Time: "TS",
	Archive: &fleetscore.ArchiveConfig{Namespace: "fleet", Every: fleetscore.Duration(5 * time.Minute), SizeMB: 64}}

// fill appends readings of 19 minutes, with pauses, each with a text of some bytes, and a tick by
// which all of them are archived.
func fill(t *testing.T, textBytes int) *hubtest.Memory {
	t.Helper()
	h := hubtest.New(1)
	put := func(arrived fleetscore.Micros, r ...*fleetscore.Readings) {
		t.Helper()
		if _, err := h.Append(t.Context(), 0, hub.Stamp{Source: "http", Arrived: arrived}, r...); err != nil {
			t.Fatal(err)
		}
	}
	put(100*minute, nil)
	for i := range fleetscore.Micros(60) {
		at := 100*minute + i*17e6 + i/20*minute
		put(at, &fleetscore.Readings{Keys: []fleetscore.Key{fleetscore.Key("d" + fleetscore.KeySeparator + "t")}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at - i%3*minute},
			Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{float64(i)}}, {Name: "Note", Strings: []string{strings.Repeat("x", textBytes)}}}})
		if i%7 == 0 {
			put(at, nil)
		}
	}
	put(200*minute, nil)
	return h
}

// ending is a hub that ends a run once its last message was taken.
type ending struct {
	hub.Hub
	end context.CancelFunc
}

func (e ending) Read(ctx context.Context, partition int, from uint64, fn func(hub.Message) error) error {
	stats, err := e.Stats(ctx)
	if err != nil {
		return err
	}
	return e.Hub.Read(ctx, partition, from, func(m hub.Message) error {
		err := fn(m)
		if err == nil && m.Seq == stats[partition].Last {
			e.end()
		}
		return err
	})
}

// run archives a hub until all of it was taken, or until the bucket ends it.
func run(t *testing.T, cfg fleetscore.HubConfig, h hub.Hub, b *faulty) *Archive {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.end = cancel
	a := New(cfg, Deps{Hub: ending{h, cancel}, Store: b, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return (200 * minute).Time() }})
	if err := a.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return a
}

// faulty is a bucket during whose nth write the process is killed, before or after the write.
type faulty struct {
	store.Bucket
	nth   int
	after bool
	end   context.CancelFunc
	meet  func() // before the nth write; nil ends the process
}

func (f *faulty) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (info store.Info, err error) {
	f.nth--
	if f.nth == 0 && f.meet != nil {
		f.meet()
	} else if f.nth == 0 {
		if f.after {
			info, err = f.Bucket.Put(ctx, name, body, opt)
		}
		f.end()
		return info, errors.Join(err, context.Canceled)
	}
	return f.Bucket.Put(ctx, name, body, opt)
}

func openDir(t *testing.T) store.Bucket {
	t.Helper()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// archived are the files of an archive, and their contents.
func archived(t *testing.T, b store.Bucket) map[string]string {
	t.Helper()
	out := map[string]string{}
	for info, err := range b.List(t.Context(), "archive/fleet/hub/", store.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		data, err := store.ReadAll(t.Context(), b, info.Name)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(string(info.Name), "archive/fleet/hub/")] = string(data)
	}
	return out
}

// values are those of the readings that an archive has, later than a time.
func values(t *testing.T, b store.Bucket, after fleetscore.Micros) (out []float64) {
	t.Helper()
	err := Read(t.Context(), b, config, after, func(m hub.Message) error {
		out = append(out, m.Readings.Columns[0].Numbers...)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return out
}

func upTo(n int) (out []float64) {
	for i := range n {
		out = append(out, float64(i))
	}
	return out
}

// TestArchive: files end where the time or the size says, lie in the folders of their first
// arrivals, and give back each reading once. The hub may then remove all of them.
func TestArchive(t *testing.T) {
	t.Parallel()
	h := fill(t, 100<<10)
	small := config
	limits := *config.Archive
	limits.SizeMB = 1
	small.Archive = &limits
	for _, c := range []struct {
		cfg  fleetscore.HubConfig
		want []string
	}{
		{config, []string{"0/1970/01/01/01/40/00.parquet", "0/1970/01/01/01/45/06.parquet", "0/1970/01/01/01/50/04.parquet", "0/1970/01/01/01/55/02.parquet"}},
		{small, []string{"0/1970/01/01/01/40/00.parquet", "0/1970/01/01/01/43/07.parquet", "0/1970/01/01/01/45/06.parquet", "0/1970/01/01/01/49/13.parquet",
			"0/1970/01/01/01/50/04.parquet", "0/1970/01/01/01/54/11.parquet", "0/1970/01/01/01/55/02.parquet", "0/1970/01/01/01/58/09.parquet"}},
	} {
		b := openDir(t)
		a := run(t, c.cfg, h, &faulty{Bucket: b})
		var names []string
		for name := range archived(t, b) {
			names = append(names, name)
		}
		slices.Sort(names)
		if d := cmp.Diff(c.want, names); d != "" {
			t.Errorf("files (-want +got):\n%s", d)
		}
		if d := cmp.Diff(upTo(60), values(t, b, math.MinInt64)); d != "" {
			t.Errorf("readings (-want +got):\n%s", d)
		}
		stats, err := h.Stats(t.Context())
		if hold := a.Hold(0); err != nil || hold != stats[0].Last+1 {
			t.Errorf("the hub has to keep messages from %d on, want none", hold)
		}
		if next, err := Next(t.Context(), b, c.cfg, h, 0); err != nil || next > stats[0].Last || next < stats[0].Last-2 {
			t.Errorf("the next message is %d, %v", next, err)
		}
	}
}

// TestKilledAnywhere: wherever the process is killed, the archive is in the end the same as that of
// an undisturbed run; also if the settings were changed meanwhile, each reading is there once.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	h, undisturbed := fill(t, 1), openDir(t)
	run(t, config, h, &faulty{Bucket: undisturbed})
	want := archived(t, undisturbed)
	changed := config
	limits := *config.Archive
	limits.Every = fleetscore.Duration(10 * time.Minute)
	changed.Archive = &limits
	for nth := 1; nth <= 9; nth++ { // the journal and four files, with a position each
		for _, after := range []bool{false, true} {
			for _, cfg := range []fleetscore.HubConfig{config, changed} {
				b := openDir(t)
				f := &faulty{Bucket: b, nth: nth, after: after}
				run(t, config, h, f)
				if f.nth > 0 {
					t.Fatalf("there is no write %d", nth)
				}
				run(t, cfg, h, &faulty{Bucket: b})
				if d := cmp.Diff(want, archived(t, b)); d != "" && cfg.Archive == config.Archive {
					t.Errorf("killed at write %d, after it %v: files (-undisturbed +killed):\n%.2000s", nth, after, d)
				}
				if d := cmp.Diff(upTo(60), values(t, b, math.MinInt64)); d != "" {
					t.Errorf("killed at write %d, after it %v: readings (-want +got):\n%s", nth, after, d)
				}
			}
		}
	}
}

// TestReplaced: a server that is frozen during any of its writes, while another one takes its
// place and archives everything, changes nothing when it goes on.
func TestReplaced(t *testing.T) {
	t.Parallel()
	h := fill(t, 1)
	for nth := 1; nth <= 9; nth++ {
		b := openDir(t)
		f := &faulty{Bucket: b, nth: nth}
		var want map[string]string
		f.meet = func() {
			run(t, config, h, &faulty{Bucket: b})
			want = archived(t, b)
		}
		run(t, config, h, f)
		if d := cmp.Diff(want, archived(t, b)); d != "" || len(want) == 0 {
			t.Errorf("frozen at write %d: %d files (-before +after):\n%.2000s", nth, len(want), d)
		}
	}
}

// TestReadLater: files that are too old for what is asked for aren't read, and old ones are removed.
func TestReadLater(t *testing.T) {
	t.Parallel()
	h, b := fill(t, 1), openDir(t)
	run(t, config, h, &faulty{Bucket: b})
	if got := values(t, b, 111*minute+margin); len(got) == 0 || got[0] < 20 || got[len(got)-1] != 59 {
		t.Errorf("readings of the last files: %v", got)
	}
	brief, again := config, openDir(t)
	limits := *config.Archive
	limits.Retention = fleetscore.Duration(91 * time.Minute) // before 200 minutes
	brief.Archive = &limits
	for range 2 {
		run(t, brief, h, &faulty{Bucket: again})
	}
	if got := archived(t, again); len(got) != 3 || got["0/1970/01/01/01/45/06.parquet"] == "" {
		t.Errorf("%d files are left, want the last 3", len(got))
	}
}
