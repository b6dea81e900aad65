package window

import (
	"hash/maphash"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// keys numbers the keys of a partition from 0 on, so that windows are arrays. A key is searched
// once for each message that has readings of it.
type keys struct {
	seed  maphash.Seed
	slots []uint32 // number + 1, at or after the place that the hash says; 0 is free
	list  []known
	bytes int64 // of memory, estimated
}

type known struct {
	hash uint64 // says the place; differs from process to process
	mix  uint64 // the key's own hash, which is always the same
	key  fleetscore.Key
	next uint32 // the key that followed it last in a message, plus 1
}

const (
	firstSlots = 64
	// keyBytes estimates the memory of a key besides its text.
	keyBytes = 40 + 16 + 16
)

func newKeys() keys { return keys{seed: maphash.MakeSeed(), slots: make([]uint32, firstSlots)} }

// after is number for a key that follows another one in a message. Most messages have the keys in
// the same order, and the key that followed last lies close by in memory, while a table of
// many keys costs several misses of the processor's caches.
func (k *keys) after(before uint32, key fleetscore.Key) uint32 {
	if int(before) >= len(k.list) {
		return k.number(key)
	}
	if n := k.list[before].next; n > 0 && k.list[n-1].key == key {
		return n - 1
	}
	n := k.number(key)
	k.list[before].next = n + 1
	return n
}

// number returns the number of a key, and adds it if it is new.
func (k *keys) number(key fleetscore.Key) uint32 {
	hash := maphash.String(k.seed, string(key))
	mask := uint64(len(k.slots) - 1)
	at := hash & mask
	for ; k.slots[at] != 0; at = (at + 1) & mask {
		if x := &k.list[k.slots[at]-1]; x.hash == hash && x.key == key {
			return k.slots[at] - 1
		}
	}
	key = fleetscore.Key(strings.Clone(string(key))) // it must not keep its message in memory
	k.list = append(k.list, known{hash: hash, mix: key.Hash(), key: key})
	k.slots[at] = uint32(len(k.list))
	k.bytes += keyBytes + int64(len(key))
	if 2*len(k.list) > len(k.slots) {
		k.slots = make([]uint32, 2*len(k.slots))
		mask = uint64(len(k.slots) - 1)
		for i := range k.list {
			at := k.list[i].hash & mask
			for k.slots[at] != 0 {
				at = (at + 1) & mask
			}
			k.slots[at] = uint32(i + 1)
		}
	}
	return uint32(len(k.list) - 1)
}

// fewKeys is how many keys are kept without asking whether they are still in use.
const fewKeys = 4096

// forget drops the keys that neither a window nor the rows that were just closed have, once
// they are the larger part. Fleets change slowly, so this is rare; without it, a sender that
// invents keys would fill the memory.
func (p *Partition) forget(closed []bool) {
	total := len(p.keys.list)
	if total <= fewKeys {
		return
	}
	used := make([]bool, total)
	copy(used, closed)
	for _, w := range p.windows {
		w.each(func(key uint32) { used[key] = true })
	}
	live := 0
	for _, u := range used {
		if u {
			live++
		}
	}
	if total <= 2*live+fewKeys {
		return
	}
	old := p.keys.list
	p.keys = newKeys()
	moved := make([]uint32, total)
	for i, u := range used {
		if u {
			moved[i] = p.keys.number(old[i].key)
		}
	}
	for _, w := range p.windows {
		p.move(w, moved)
	}
}
