package window

import (
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

// lined is a gate whose keys have watermarks of their own; apart is a minute.
func lined() *Gate {
	return NewGate(Config{Disorder: 2 * time.Second, IdleAfter: 5 * time.Second, MaxEarly: 5 * time.Minute, GoneAfter: 15 * time.Minute, Apart: time.Minute})
}

const sec = fleetscore.Micros(1e6)

// hear takes a reading of a key that arrives at a time, late by some time, and returns its verdict.
func hear(g *Gate, source, key string, arrived, late fleetscore.Micros) (out Verdict) {
	r := &fleetscore.Readings{Keys: []fleetscore.Key{fleetscore.Key(key)}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{arrived - late}}
	g.Readings(Stamp{Source: fleetscore.Source(source), Arrived: arrived}, View{Readings: r}, unset, nil, func(_ int, v Verdict, _ Print, _ fleetscore.Micros) { out = v })
	return out
}

// TestSilentKey: a key that is silent is waited for by no more than the bound, and not at all once it
// was silent for so long; a key that is slow is waited for, and its readings count.
func TestSilentKey(t *testing.T) {
	t.Parallel()
	g := lined()
	at := 1000 * sec
	for ; at < 1100*sec; at += sec {
		for key, late := range map[string]fleetscore.Micros{"quick": 0, "slow": 40 * sec} {
			if v := hear(g, "http", key, at, late); v != Counted {
				t.Fatalf("%s at %s: %s", key, at, v)
			}
		}
	}
	if w, _ := g.Watermark(); w != 1099*sec-40*sec-2*sec || g.Mark(0, nil).Key.Key != "slow" {
		t.Errorf("while the slow key sends, the watermark is %s, held by %q", w, g.Mark(0, nil).Key.Key)
	}
	for ; at < 1300*sec; at += sec { // only the quick one
		hear(g, "http", "quick", at, 0)
		want := max(1099*sec-42*sec, at-60*sec)
		if at > 1099*sec+60*sec {
			want = at - 2*sec
		}
		if w, _ := g.Watermark(); w != want {
			t.Fatalf("at %s the watermark is %s, want %s", at, w, want)
		}
	}
	if keys := g.Lines().Keys; len(keys) != 1 {
		t.Errorf("the keys %+v are known, want the quick one", keys)
	}
	// It comes back: its first readings are late, because rows of their time are complete; then it is waited for again.
	late := 0
	for ; at < 1400*sec; at += sec {
		hear(g, "http", "quick", at, 0)
		if hear(g, "http", "slow", at, 40*sec) == Late {
			late++
		}
	}
	if late < 35 || late > 40 || hear(g, "http", "slow", at, 40*sec) != Counted {
		t.Errorf("%d readings were late after the silence", late)
	}
	if v := hear(g, "http", "slow", at, 61*sec); v != Late {
		t.Errorf("a reading that is older than the bound is %s", v)
	}
	g.Tick(Stamp{Source: "http", Arrived: at + 10*sec})
	if w, _ := g.Watermark(); w != at+5*sec {
		t.Errorf("after a tick the watermark is %s, want %s: it advances all keys", w, at+5*sec)
	}
}

// TestOutageOfSource: while one of two sources can't write to the log, its keys aren't taken for silent.
func TestOutageOfSource(t *testing.T) {
	t.Parallel()
	g := lined()
	at := 900 * sec
	for ; at < 1001*sec; at += sec {
		hear(g, "one", "a", at, 0)
		hear(g, "two", "b", at, 0)
	}
	for ; at < 1600*sec; at += sec {
		hear(g, "one", "a", at, 0)
	}
	if w, _ := g.Watermark(); w != 998*sec {
		t.Errorf("after 10 minutes without source two the watermark is %s, want %s", w, 998*sec)
	}
	if v := hear(g, "one", "d", at, 61*sec); v != Late {
		t.Errorf("a reading that is older than the bound, but not than the watermark, is %s", v)
	}
	if v := hear(g, "two", "b", at, at-1001*sec); v != Late { // older than the bound at its arrival
		t.Errorf("an old reading is %s", v)
	}
	for ; at < 2700*sec; at += sec {
		hear(g, "one", "a", at, 0)
	}
	if w, _ := g.Watermark(); w != at-sec-2*sec {
		t.Errorf("after source two is gone the watermark is %s", w)
	}
}

// TestPartitionFails: a partition that fails for long is no silence of the keys that have readings in it, and what the others have worked
// meanwhile isn't counted when they fail later. A key that is silent while all work isn't waited for.
func TestPartitionFails(t *testing.T) {
	t.Parallel()
	g := NewGate(Config{Disorder: 2 * time.Second, IdleAfter: 5 * time.Second, MaxEarly: 5 * time.Minute, GoneAfter: 15 * time.Minute, Apart: time.Minute, Partitions: 2})
	hear := func(partition int, key string, arrived, late fleetscore.Micros) (out Verdict) {
		r := &fleetscore.Readings{Keys: []fleetscore.Key{"a"}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{arrived - late}}
		g.Readings(Stamp{Partition: partition, Source: "http", Arrived: arrived}, View{Readings: r, Lines: []fleetscore.Key{fleetscore.Key(key)}}, unset, nil, func(_ int, v Verdict, _ Print, _ fleetscore.Micros) { out = v })
		return out
	}
	known := func() (out []string) {
		for _, k := range g.Lines().Keys {
			out = append(out, string(k.Key))
		}
		return out
	}
	at := 1000 * sec
	for ; at < 1100*sec; at += sec {
		hear(0, "both", at, 0)
		hear(1, "other", at, 30*sec)
	}
	for _, fails := range []int{1, 0} { // one after the other, for five minutes each
		for end := at + 300*sec; at < end; at += sec {
			hear(1-fails, "other", at, 0)
		}
		if got := known(); len(got) != 2 {
			t.Errorf("while partition %d failed, some keys were forgotten; %q are known", fails, got)
		}
		hear(fails, "both", at, 0)
	}
	for end := at + 100*sec; at < end; at += sec {
		hear(0, "both", at, 0)
		g.Tick(Stamp{Partition: 1, Source: "http", Arrived: at})
	}
	if got := known(); len(got) != 1 || got[0] != "both" {
		t.Errorf("%q are known, want the key that isn't silent", got)
	}
}
