package scorer

import (
	"encoding/binary"
	"math"

	"github.com/fleetscore/fleetscore"
)

// kept ends a key whose rows and model are those of an earlier item, and which is to be left
// as it is. It notes the key's content otherwise.
func (r *run) kept(it *fleetscore.Item, settings uint64, model fleetscore.Digest, group []uint32) bool {
	if it.Content = 0; settings == 0 {
		return false
	}
	it.Content = r.content(settings, model, group)
	old, ok := r.spec.Earlier[it.Key]
	if !ok || old.Kept == "" || old.Content != it.Content || old.Model != model || old.Outcome != fleetscore.Scored {
		return false
	}
	*it = old
	return true
}

// content is a digest of the settings, the model and a key's rows, as far as they matter, whatever the
// order in which they come. It is never 0. As only two contents of the same key are compared
// with each other, a change goes unnoticed once in 2^64 times.
func (r *run) content(settings uint64, model fleetscore.Digest, group []uint32) uint64 {
	sum := settings
	for i := 0; i < len(model); i += 8 {
		sum = mix(sum ^ binary.LittleEndian.Uint64(model[i:]))
	}
	begin := sum
	for _, row := range group {
		h := mix(begin ^ uint64(r.rows.Times[row]))
		for _, c := range r.columns {
			h = mix(h ^ math.Float64bits(c[row]))
		}
		if r.label != nil {
			h = mix(h ^ math.Float64bits(r.label[row]))
		}
		sum += h
	}
	return max(1, sum)
}

// mix turns a number into one that looks random, one to one (the end of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
