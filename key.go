package fleetscore

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Key identifies one sensor: the values of the key columns, in the order the
// configuration names them, joined by KeySeparator.
type Key string

// KeySeparator stands between the values of a Key (ASCII unit separator). A
// value that contains it, or is empty, is refused by NewKey.
const KeySeparator = "\x1f"

// NewKey joins the values of the key columns.
func NewKey(values ...string) (Key, error) {
	for i, v := range values {
		if v == "" {
			return "", Errorf(Invalid, "make key", "", "value %d of %d is empty", i+1, len(values))
		}
		if strings.Contains(v, KeySeparator) {
			return "", Errorf(Invalid, "make key", "", "value %q contains the separator U+001F", v)
		}
	}
	return Key(strings.Join(values, KeySeparator)), nil
}

// Values returns the values of the key columns.
func (k Key) Values() []string { return strings.Split(string(k), KeySeparator) }

// String shows the key to people, e.g. "3/pressure"; control characters, which
// devices may send, are escaped as \x1b.
func (k Key) String() string { return Printable(strings.ReplaceAll(string(k), KeySeparator, "/")) }

// Without gives keys without those of others.
func Without(keys, others []Key) []Key {
	if len(others) == 0 {
		return keys
	}
	drop := make(map[Key]bool, len(others))
	for _, k := range others {
		drop[k] = true
	}
	return slices.DeleteFunc(slices.Clone(keys), func(k Key) bool { return drop[k] })
}

// Printable escapes control characters and characters that change the writing
// direction, so that a text from outside can't control a terminal or forge a line of
// a log.
func Printable(s string) string {
	if strings.IndexFunc(s, commands) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !commands(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func commands(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// Shard is hash(key) mod 256. The hash is fixed for ever: hub partitions, files,
// packs and tasks are ranges of shards.
type Shard uint8

// Shards is how many shards there are.
const Shards = 256

// Shard returns the key's shard: the highest byte of its Hash.
func (k Key) Shard() Shard { return Shard(k.Hash() >> 56) }

// Hash is the 64-bit FNV-1a hash of the key's bytes, after the finalizer of
// MurmurHash3 (fmix64). It is fixed for ever: files hold it.
func (k Key) Hash() uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(k); i++ {
		h ^= uint64(k[i])
		h *= 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}

// ShardRange is the shards First to Last, both included.
type ShardRange struct {
	First Shard `json:"first"`
	Last  Shard `json:"last"`
}

// AllShards is the range of every shard.
var AllShards = ShardRange{0, Shards - 1}

// Contains reports whether s lies in the range.
func (r ShardRange) Contains(s Shard) bool { return r.First <= s && s <= r.Last }

// Overlaps reports whether the ranges share a shard.
func (r ShardRange) Overlaps(o ShardRange) bool { return r.First <= o.Last && o.First <= r.Last }

// String formats the range as in file names: "s000-031".
func (r ShardRange) String() string { return fmt.Sprintf("s%03d-%03d", r.First, r.Last) }

// SplitShards cuts all shards into n contiguous ranges of near equal size;
// n is clamped to 1…256.
func SplitShards(n int) []ShardRange {
	n = max(1, min(n, Shards))
	out := make([]ShardRange, n)
	for i := range out {
		out[i] = ShardRange{Shard(i * Shards / n), Shard((i+1)*Shards/n - 1)}
	}
	return out
}
