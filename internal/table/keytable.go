package table

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/fleetscore/fleetscore"
)

// keyTable numbers keys, shared by the goroutines that parse a file. Finding a
// known key takes no lock. Rows mostly come in the same order of sensors again
// and again, so each key remembers which one followed it last, and the guess is
// tried before the hash is.
type keyTable struct {
	seed  maphash.Seed
	slots atomic.Pointer[[]atomic.Pointer[keyEntry]] // open addressing, a power of two, at most half full

	mu    sync.Mutex // guards what follows, and all insertion
	count uint32
	slabs [][]keyEntry // entries in the order of their numbers
	text  []byte       // where the next keys' text goes; never moved once referred to
}

type keyEntry struct {
	key  string
	id   uint32
	next atomic.Pointer[keyEntry] // the key of the row that followed, when last seen
}

const keySlab = 1024 // entries allocated at once

func newKeyTable() *keyTable {
	t := &keyTable{seed: maphash.MakeSeed()}
	slots := make([]atomic.Pointer[keyEntry], 1024)
	t.slots.Store(&slots)
	return t
}

// find returns the entry of a key, which follows the row of last (nil at first).
func (t *keyTable) find(key []byte, last *keyEntry) *keyEntry {
	if last != nil {
		if e := last.next.Load(); e != nil && e.key == string(key) {
			return e
		}
	}
	h := maphash.Bytes(t.seed, key)
	e := probe(*t.slots.Load(), h, key)
	if e == nil {
		e = t.insert(h, key)
	}
	if last != nil {
		last.next.Store(e)
	}
	return e
}

func probe(slots []atomic.Pointer[keyEntry], h uint64, key []byte) *keyEntry {
	mask := uint64(len(slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		e := slots[i].Load()
		if e == nil || e.key == string(key) {
			return e
		}
	}
}

// insert adds a key, unless another goroutine did meanwhile.
func (t *keyTable) insert(h uint64, key []byte) *keyEntry {
	t.mu.Lock()
	defer t.mu.Unlock()
	slots := *t.slots.Load()
	if e := probe(slots, h, key); e != nil {
		return e
	}
	if int(t.count) >= len(slots)/2 {
		grown := make([]atomic.Pointer[keyEntry], 2*len(slots))
		for i := range slots {
			if e := slots[i].Load(); e != nil {
				place(grown, maphash.String(t.seed, e.key), e)
			}
		}
		slots = grown
		t.slots.Store(&grown)
	}
	n := int(t.count)
	if n%keySlab == 0 {
		t.slabs = append(t.slabs, make([]keyEntry, keySlab))
	}
	e := &t.slabs[n/keySlab][n%keySlab]
	e.key, e.id = t.keep(key), t.count
	t.count++
	place(slots, h, e)
	return e
}

func place(slots []atomic.Pointer[keyEntry], h uint64, e *keyEntry) {
	mask := uint64(len(slots) - 1)
	i := h & mask
	for slots[i].Load() != nil {
		i = (i + 1) & mask
	}
	slots[i].Store(e)
}

// keep copies a key's text into memory that is shared by many keys.
func (t *keyTable) keep(key []byte) string {
	if len(key) > cap(t.text)-len(t.text) {
		t.text = make([]byte, 0, max(64<<10, len(key)))
	}
	at := len(t.text)
	t.text = append(t.text, key...)
	return unsafe.String(&t.text[at], len(key))
}

// keys are all keys in the order of their numbers.
func (t *keyTable) keys() []fleetscore.Key {
	out := make([]fleetscore.Key, t.count)
	for i := range out {
		out[i] = fleetscore.Key(t.slabs[i/keySlab][i%keySlab].key)
	}
	return out
}
