package reference

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/store"
)

func shown(rows []*value.Record) (out []string) {
	for _, r := range rows {
		line := ""
		for i, name := range r.Shape.Names {
			text, _ := value.Cast(r.Values[i], value.Text)
			line += fmt.Sprintf("%s=%s %s;", name, r.Values[i].Type(), text.Text())
		}
		out = append(out, line)
	}
	return out
}

// TestVersions: a file that has changed becomes a new version, in force from a little later
// on, and the old ones stay, also for a set that is made anew.
func TestVersions(t *testing.T) {
	t.Parallel()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	cfg := map[string]fleetscore.ReferenceConfig{"limits": {Path: "references/limits.csv"}}
	open := func() *Set {
		s := New(cfg, Deps{Store: b, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
		if err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s
	}
	write := func(text string) {
		if err := store.WriteAll(t.Context(), b, "references/limits.csv", []byte(text), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s := open()
	if _, err := s.Versions(t.Context(), "limits", 0); !fleetscore.Unavailable.Is(err) {
		t.Errorf("without a file: %v", err)
	}
	if err := s.Refresh(t.Context(), "limits"); !fleetscore.NotFound.Is(err) || !strings.Contains(err.Error(), "references/limits.csv") {
		t.Errorf("without a file: %v", err)
	}
	steps := []struct {
		text    string
		want    []fleetscore.Micros
		refused bool
	}{
		{"Device,Most\na,1\n", []fleetscore.Micros{0}, false},
		{"Device,Most\na,1\n", []fleetscore.Micros{0}, false},
		{"Device,Most\na,2\n", []fleetscore.Micros{0, 1025e6}, false},
		{"Device,Most\na,2,3\n", []fleetscore.Micros{0, 1025e6}, true}, // damaged: the last one stays
		{"Device,Most\na,1\n", []fleetscore.Micros{0, 1025e6, 1045e6}, false},
	}
	for i, step := range steps {
		write(step.text)
		if err := s.Refresh(t.Context(), "limits"); (err != nil) != step.refused {
			t.Errorf("step %d: %v", i, err)
		}
		next := open()
		for name, x := range map[string]*Set{"the same": s, "a new": next} {
			got, err := x.Versions(t.Context(), "limits", 0)
			var from []fleetscore.Micros
			for _, v := range got {
				from = append(from, v.From)
			}
			if d := cmp.Diff(step.want, from); d != "" || err != nil {
				t.Errorf("step %d, versions of %s set: %v (-want +got):\n%s", i, name, err, d)
			}
		}
		s, now = next, now.Add(10*time.Second)
	}
	list, _ := open().Versions(t.Context(), "limits", 0)
	for i, want := range []string{"1", "2", "1"} {
		for range 2 { // the second time from memory
			rows, err := s.Rows(t.Context(), "limits", list[i])
			if d := cmp.Diff([]string{"Device=nvarchar(max) a;Most=nvarchar(max) " + want + ";"}, shown(rows)); d != "" || err != nil {
				t.Errorf("version %d: %v (-want +got):\n%s", i, err, d)
			}
		}
	}
}

// slow is a bucket whose next entry of a log waits until it is let go on.
type slow struct {
	store.Bucket
	held chan struct{} // nil: nothing waits
}

func (s *slow) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (store.Info, error) {
	if s.held != nil && strings.Contains(string(name), "/log/") {
		<-s.held
	}
	return s.Bucket.Put(ctx, name, body, opt)
}

// TestStoredSlowly: a version comes into force after the times that queries have passed; while
// it is being stored, those wait that want to pass its time, and others don't. A server that
// another one has replaced meanwhile adds no version.
func TestStoredSlowly(t *testing.T) {
	t.Parallel()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		files := &slow{Bucket: b}
		open := func() *Set {
			s := New(map[string]fleetscore.ReferenceConfig{"limits": {Path: "references/limits.csv"}},
				Deps{Store: files, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return time.Unix(1000, 0) }})
			if err := s.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			return s
		}
		write := func(most int) {
			if err := store.WriteAll(t.Context(), b, "references/limits.csv", fmt.Appendf(nil, "Device,Most\na,%d\n", most), store.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		versions := func(s *Set, to fleetscore.Micros) (from []fleetscore.Micros) {
			list, err := s.Versions(t.Context(), "limits", to)
			if err != nil {
				t.Error(err)
			}
			for _, v := range list {
				from = append(from, v.From)
			}
			return from
		}
		s := open()
		write(1)
		if err := s.Refresh(t.Context(), "limits"); err != nil {
			t.Fatal(err)
		}
		versions(s, 2000e6)
		files.held = make(chan struct{})
		write(2)
		stored := make(chan error, 1)
		go func() { stored <- s.Refresh(t.Context(), "limits") }()
		synctest.Wait()
		if d := cmp.Diff([]fleetscore.Micros{0}, versions(s, 2000e6)); d != "" {
			t.Errorf("up to a time before that of the version (-want +got):\n%s", d)
		}
		got := make(chan []fleetscore.Micros, 1)
		go func() { got <- versions(s, 2000e6+1) }()
		synctest.Wait()
		select {
		case list := <-got:
			t.Fatalf("a query passed the time of a version that isn't stored, with %v", list)
		default:
		}
		close(files.held)
		want := []fleetscore.Micros{0, 2000e6 + 1}
		if d := cmp.Diff(want, <-got); d != "" {
			t.Errorf("once it is stored (-want +got):\n%s", d)
		}
		if err := <-stored; err != nil {
			t.Error(err)
		}

		files.held = make(chan struct{})
		write(3)
		go func() { stored <- s.Refresh(t.Context(), "limits") }()
		synctest.Wait()
		frozen := files.held
		files.held = nil
		other := open()
		close(frozen)
		if err := <-stored; !fleetscore.Conflict.Is(err) {
			t.Errorf("a server that was replaced: %v, want kind conflict", err)
		}
		for name, x := range map[string]*Set{"the server in its place": other, "a later one": open()} {
			if d := cmp.Diff(want, versions(x, 5000e6)); d != "" {
				t.Errorf("%s (-want +got):\n%s", name, d)
			}
		}
	})
}

// TestRunUntilTheEnd: a set runs as long as its context, even if there is nothing to look at,
// because a service that ends takes the others with it. A file that is absent is told in the
// health while the set runs.
func TestRunUntilTheEnd(t *testing.T) {
	t.Parallel()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		for _, cfg := range []map[string]fleetscore.ReferenceConfig{nil, {"limits": {Path: "references/limits.csv", Every: fleetscore.Duration(time.Minute)}}} {
			var health obs.Health
			s := New(cfg, Deps{Store: b, Log: slog.New(slog.DiscardHandler), Health: &health, Now: time.Now})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			time.Sleep(10 * time.Minute) // of the bubble's clock
			select {
			case err := <-ended:
				t.Errorf("%v: it ended early: %v", cfg, err)
				continue
			default:
			}
			if got := len(health.Problems()); got != len(cfg) {
				t.Errorf("%d problems, want %d", got, len(cfg))
			}
			if err := <-ended; !errors.Is(err, context.DeadlineExceeded) || len(health.Problems()) != 0 {
				t.Errorf("it ended with %v and problems %v", err, health.Problems())
			}
		}
	})
}
