package fleetscore

import "testing"

// TestShard: the hash is fixed for ever, as files and hubs are laid out by it.
func TestShard(t *testing.T) {
	t.Parallel()
	for key, want := range map[Key]Shard{"": 239, "1\x1fpressure": 219, "Ünïcode\x1f温度": 208} {
		if got := key.Shard(); got != want {
			t.Errorf("shard of %q is %d, want %d", key, got, want)
		}
	}
}

// TestSplitShards: the ranges cover every shard once.
func TestSplitShards(t *testing.T) {
	t.Parallel()
	for n := -1; n < 300; n++ {
		next := 0
		for _, r := range SplitShards(n) {
			if int(r.First) != next || r.Last < r.First {
				t.Fatalf("%d ranges: %v starts at %d", n, r, next)
			}
			next = int(r.Last) + 1
		}
		if next != Shards {
			t.Fatalf("%d ranges end at %d", n, next)
		}
	}
}

// TestPrintable: a name that a device sends can't control a terminal.
func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"3/pressure": "3/pressure", "Ünïcode 温度": "Ünïcode 温度",
		"\x1b[31mred\a": `\x1b[31mred\x07`, "a\nb": `a\x0ab`, "\u0085": `\x85`, "\u202eevil": `\u202eevil`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	k, err := NewKey("1\n2", "x")
	if err != nil || k.String() != `1\x0a2/x` {
		t.Errorf("key %q, %v", k, err)
	}
}
