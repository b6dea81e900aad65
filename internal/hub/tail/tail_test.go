package tail

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func keyOf(t *testing.T, values ...string) fleetscore.Key {
	t.Helper()
	k, err := fleetscore.NewKey(values...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// add appends messages that arrive a second after the other, each with a reading of two sensors.
func add(t *testing.T, h hub.Hub, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		for n, tag := range []string{"1", "2"} {
			key := keyOf(t, "a", tag)
			p := 0
			for at, r := range fleetscore.SplitShards(h.Partitions()) {
				if r.First <= key.Shard() && key.Shard() <= r.Last {
					p = at
				}
			}
			at := fleetscore.MicrosOf(noon.Add(time.Duration(2*i+n) * time.Second))
			r := &fleetscore.Readings{Keys: []fleetscore.Key{key}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at}, IDs: []string{fmt.Sprint("i", i)},
				Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{float64(i)}}, {Name: "Unit", Strings: []string{"bar"}}}}
			if _, err := h.Append(t.Context(), p, hub.Stamp{Source: fleetscore.SourceHTTP, Arrived: at}, r); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Append(t.Context(), p, hub.Stamp{Source: fleetscore.SourceHTTP, Arrived: at}); err != nil { // a tick
				t.Fatal(err)
			}
		}
	}
}

// TestRead: the last readings, those from a time and from an offset on, and those of a sensor, are the ones that a look at all of them gives.
func TestRead(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 3} {
		h := hubtest.New(partitions)
		add(t, h, 0, 50)
		read := func(q Query) string {
			t.Helper()
			var out []string
			err := Read(t.Context(), h, q, func(x Reading) error {
				out = append(out, fmt.Sprintf("%s=%v", strings.Join(x.Key, "/"), x.Values["Value"]))
				if x.Values["Unit"] != "bar" || x.ID != fmt.Sprint("i", x.Values["Value"]) || !x.Time.Equal(x.Arrived) || x.Source != fleetscore.SourceHTTP {
					t.Errorf("%+v", x)
				}
				return nil
			})
			if err != nil {
				t.Errorf("%+v: %v", q, err)
			}
			return strings.Join(out, " ")
		}
		two := keyOf(t, "a", "2")
		for _, c := range []struct {
			q    Query
			want string
		}{
			{Query{Partition: -1, Limit: 3}, "a/2=48 a/1=49 a/2=49"},
			{Query{Partition: -1, Key: two, Limit: 2}, "a/2=48 a/2=49"},
			{Query{Partition: -1, Key: two, From: noon.Add(96 * time.Second)}, "a/2=48 a/2=49"},
			{Query{Partition: -1, Key: two, From: noon.Add(97 * time.Second)}, "a/2=48 a/2=49"},
			{Query{Partition: -1, Key: two, From: noon.Add(97*time.Second + 1000)}, "a/2=49"},
			{Query{Partition: -1, Key: two, From: noon.Add(-time.Hour), Limit: 2}, "a/2=0 a/2=1"},
			{Query{Partition: -1, From: noon.Add(time.Hour)}, ""},
			{Query{Partition: -1, Key: keyOf(t, "b", "1"), Limit: 2}, ""},
		} {
			if got := read(c.q); got != c.want {
				t.Errorf("%d partitions, %+v: %q, want %q", partitions, c.q, got, c.want)
			}
		}
		if partitions == 1 {
			if got := read(Query{Partition: -1, Offset: 197}); got != "a/1=49 a/2=49" {
				t.Errorf("from an offset: %q", got)
			}
			continue
		}
		for _, q := range []Query{{Partition: -1, Offset: 3}, {Partition: 3}} {
			if err := Read(t.Context(), h, q, func(Reading) error { return nil }); err == nil {
				t.Errorf("%+v is read", q)
			}
		}
	}
}

// TestFollow: what comes later is read until there is enough, or nobody wants more.
func TestFollow(t *testing.T) {
	t.Parallel()
	h := hubtest.New(2)
	add(t, h, 0, 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan float64, 8)
	done := make(chan error, 1)
	go func() {
		done <- Read(ctx, h, Query{Partition: -1, Key: keyOf(t, "a", "1"), From: noon.Add(4 * time.Second), Follow: true}, func(x Reading) error {
			got <- x.Values["Value"].(float64)
			return nil
		})
	}()
	if v := <-got; v != 2 {
		t.Fatalf("first is %v", v)
	}
	add(t, h, 3, 5)
	if a, b := <-got, <-got; a != 3 || b != 4 {
		t.Errorf("then come %v and %v", a, b)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("it ended without the context's error")
	}
	add(t, h, 5, 6)
	if len(got) != 0 {
		t.Error("it goes on")
	}
}

// TestKeys: what is told of a key is what a look at all of its readings tells, of those from a time on too.
func TestKeys(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 3} {
		h := hubtest.New(partitions)
		add(t, h, 0, 50)
		late := fleetscore.MicrosOf(noon.Add(-time.Hour))
		at := hub.Stamp{Source: fleetscore.SourceMQTT, Arrived: fleetscore.MicrosOf(noon.Add(200 * time.Second))}
		r := &fleetscore.Readings{Keys: []fleetscore.Key{keyOf(t, "b", "1")}, KeyIndex: []uint32{0, 0}, Times: []fleetscore.Micros{at.Arrived, late}, Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{1, 2}}}}
		for i := range partitions { // in each, because its place doesn't matter here
			if _, err := h.Append(t.Context(), i, at, r); err != nil {
				t.Fatal(err)
			}
		}
		keys := func(q Query) string {
			t.Helper()
			var out []string
			err := Keys(t.Context(), h, q, noon.Add(200*time.Second), func(k Key) error {
				s := func(at time.Time) float64 { return at.Sub(noon).Seconds() }
				out = append(out, fmt.Sprint(strings.Join(k.Key, "/"), " ", k.Readings, " ", k.PerSecond, " ", s(k.First), " ", s(k.Last), " ", s(k.FirstArrived), " ", s(k.LastArrived), " ", k.Lag, k.Sources))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			return strings.Join(out, ", ")
		}
		b := fmt.Sprintf("b/1 %d %v -3600 200 200 200 3800 [mqtt]", 2*partitions, float64(2*partitions)/200)
		if got, want := keys(Query{Partition: -1}), "a/1 50 0.25 0 98 0 98 0 [http], a/2 50 0.25 1 99 1 99 0 [http], "+b; got != want {
			t.Errorf("%d partitions: %s, want %s", partitions, got, want)
		}
		if got, want := keys(Query{Partition: -1, Key: keyOf(t, "a", "2"), From: noon.Add(97 * time.Second)}), "a/2 2 0.0194"; !strings.HasPrefix(got, want) || strings.Contains(got, ",") {
			t.Errorf("%d partitions, of one from a time on: %s, want %s", partitions, got, want)
		}
	}
}

// TestRatesOfPartitions: the readings a second of a key are counted over the time of its own partition: the last messages of another
// one may be those of a much longer time.
func TestRatesOfPartitions(t *testing.T) {
	t.Parallel()
	h := hubtest.New(2)
	send := func(partition int, at time.Duration, key string) {
		t.Helper()
		arrived := fleetscore.MicrosOf(noon.Add(at))
		r := &fleetscore.Readings{Keys: []fleetscore.Key{keyOf(t, key, "1")}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{arrived}}
		if _, err := h.Append(t.Context(), partition, hub.Stamp{Source: fleetscore.SourceHTTP, Arrived: arrived}, r); err != nil {
			t.Fatal(err)
		}
	}
	send(0, 0, "quiet")
	for i := range 10 {
		send(1, 990*time.Second+time.Duration(i)*time.Second, "busy")
	}
	got := map[string]float64{}
	err := Keys(t.Context(), h, Query{Partition: -1}, noon.Add(1000*time.Second), func(k Key) error {
		got[k.Key[0]] = k.PerSecond
		return nil
	})
	if err != nil || got["busy"] != 1 || got["quiet"] != 0.001 {
		t.Errorf("readings a second: %v, %v", got, err)
	}
}
