package gateway

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/fleetscore/fleetscore"
)

// shared is what the parsers and committers of a gateway share: the numbers of the keys,
// and batches that are used again.
type shared struct {
	partition *[fleetscore.Shards]int // of each shard
	count     int                     // of partitions
	current   atomic.Pointer[dictionary]
	spare     sync.Pool // of *batch
}

func newShared(partition *[fleetscore.Shards]int, count int) *shared {
	s := &shared{partition: partition, count: count}
	s.current.Store(newDictionary(s))
	return s
}

// renew replaces a dictionary that is full. Batches keep the dictionary that they began
// with, so its memory is released with the last of them.
func (s *shared) renew(full *dictionary) *dictionary {
	s.current.CompareAndSwap(full, newDictionary(s))
	return s.current.Load()
}

// maxDictionaryBytes bounds the memory that clients can fill with keys: it suffices for
// a million keys of 20 bytes.
const maxDictionaryBytes = 80 << 20

// dictionary numbers the keys of a gateway's readings, so that a reading needs one search
// of a table, and joining batches none. Keys stay until the dictionary is full. It is used
// by all parsers at once: searching takes no lock, adding does.
type dictionary struct {
	shared *shared
	seed   maphash.Seed
	now    atomic.Pointer[entries]

	mu    sync.Mutex // guards adding
	next  []uint32   // by partition: the number of its next key
	texts texts
	bytes int // of memory
}

// entries is a table of open addressing. keys[:n] are immutable once they are named by a slot.
type entries struct {
	slots []atomic.Uint32 // place in keys, plus 1, at or after the place that the hash says; 0 is free
	keys  []known
	next  []atomic.Uint32 // by place in keys: which key followed it last, as a place plus 1
	n     int             // of keys; guarded by the dictionary's mu
}

type known struct {
	hash      uint64
	key       fleetscore.Key
	partition int32
	number    uint32 // of the key in its partition, from 0
}

const (
	firstKeys  = 256
	entryBytes = int(unsafe.Sizeof(known{})) + 3*4
	blockBytes = 32 << 10
)

func newDictionary(s *shared) *dictionary {
	d := &dictionary{shared: s, seed: maphash.MakeSeed(), next: make([]uint32, s.count)}
	d.now.Store(&entries{slots: make([]atomic.Uint32, 2*firstKeys), keys: make([]known, firstKeys), next: make([]atomic.Uint32, firstKeys)})
	return d
}

// find returns the place of a key in the dictionary, and adds a new one; false if there is
// no room for it. before is the place of the key before it: senders repeat their keys in the same
// order, and the key that followed last lies close by in memory, while a table of many keys
// costs several misses of the processor's caches.
func (d *dictionary) find(key []byte, before uint32) (place uint32, ok bool) {
	e := d.now.Load()
	if n := e.next[before].Load(); n > 0 && string(e.keys[n-1].key) == string(key) {
		return n - 1, true
	}
	hash := maphash.Bytes(d.seed, key)
	n := e.search(hash, key)
	if n == 0 {
		if place, ok = d.add(hash, key); !ok {
			return 0, false
		}
		e, n = d.now.Load(), place+1
	}
	e.next[before].Store(n)
	return n - 1, true
}

// following returns the key that followed a place last, and its place; empty if none did.
func (d *dictionary) following(before uint32) (fleetscore.Key, uint32) {
	e := d.now.Load()
	if n := e.next[before].Load(); n > 0 {
		return e.keys[n-1].key, n - 1
	}
	return "", 0
}

// search returns the place of a key, plus 1; 0 if it isn't there.
func (e *entries) search(hash uint64, key []byte) uint32 {
	mask := uint64(len(e.slots) - 1)
	for at := hash & mask; ; at = (at + 1) & mask {
		n := e.slots[at].Load()
		if n == 0 {
			return 0
		}
		if x := &e.keys[n-1]; x.hash == hash && string(x.key) == string(key) {
			return n
		}
	}
}

func (d *dictionary) add(hash uint64, key []byte) (place uint32, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.now.Load()
	if n := e.search(hash, key); n > 0 { // another parser added it meanwhile
		return n - 1, true
	}
	if d.bytes += len(key) + entryBytes; d.bytes > maxDictionaryBytes {
		return 0, false
	}
	if e.n == len(e.keys) {
		e = e.grow()
		d.now.Store(e)
	}
	text := fleetscore.Key(d.texts.keep(key))
	partition := d.shared.partition[text.Shard()]
	e.keys[e.n] = known{hash: hash, key: text, partition: int32(partition), number: d.next[partition]}
	d.next[partition]++
	e.n++
	e.name(uint32(e.n))
	return uint32(e.n - 1), true
}

// grow returns a copy with twice the room.
func (e *entries) grow() *entries {
	out := &entries{slots: make([]atomic.Uint32, 2*len(e.slots)), keys: make([]known, 2*len(e.keys)), n: e.n}
	out.next = make([]atomic.Uint32, len(out.keys))
	copy(out.keys, e.keys)
	for i := range e.n {
		out.next[i].Store(e.next[i].Load())
	}
	for n := range e.n {
		out.name(uint32(n + 1))
	}
	return out
}

// name makes the key before place n findable.
func (e *entries) name(n uint32) {
	mask := uint64(len(e.slots) - 1)
	at := e.keys[n-1].hash & mask
	for e.slots[at].Load() != 0 {
		at = (at + 1) & mask
	}
	e.slots[at].Store(n)
}

// texts keeps short texts in blocks of many: a million texts of their own would take more memory
// and more time of the garbage collector.
type texts struct{ block []byte }

func (t *texts) keep(text []byte) string {
	if len(t.block)+len(text) > cap(t.block) {
		t.block = make([]byte, 0, max(blockBytes, len(text)))
	}
	from := len(t.block)
	t.block = append(t.block, text...)
	return unsafe.String(unsafe.SliceData(t.block[from:]), len(text)) // these bytes are never written again
}

// numbering gives the keys of one message their numbers in it. A committer has one.
type numbering struct {
	of    *dictionary
	place []uint64 // by a key's number in the partition: round, and the number in the message
	round uint64   // of the message
	found []fleetscore.Key
}

// of 32 bits each.
const numberBits = 32

// keys returns the distinct keys of a message in the order of their first readings, and
// replaces the places in the dictionary by places among them.
func (n *numbering) keys(d *dictionary, index []uint32) []fleetscore.Key {
	if n.of != d || n.round == 1<<numberBits-1 {
		*n = numbering{of: d}
	}
	n.round++
	found := n.found[:0]
	all := d.now.Load().keys
	for i, at := range index {
		x := &all[at]
		if int(x.number) >= len(n.place) {
			n.place = append(n.place, make([]uint64, max(int(x.number)+1-len(n.place), len(n.place)))...)
		}
		p := &n.place[x.number]
		if *p>>numberBits != n.round {
			*p = n.round<<numberBits | uint64(len(found))
			found = append(found, x.key)
		}
		index[i] = uint32(*p) // the lower half
	}
	n.found = found
	return slices.Clone(found)
}
