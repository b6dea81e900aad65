package hub

import (
	"cmp"
	"slices"
	"sync"

	"github.com/fleetscore/fleetscore"
)

// How much memory the newest messages may take that are kept decoded for readers: those of a partition, and of all partitions together.
const (
	sharedBytes = 16 << 20
	allBytes    = 256 << 20
)

// Estimates of memory: of a message without its readings, and how much larger readings are than their form in the log, before
// they are decoded. With many absent values, or texts, they are far larger.
const (
	messageBytes  = 512
	decodedFactor = 4
)

// decodedLog holds the newest messages of a partition as readings, as long as a reader is still going to
// read them: those that were written while there were readers, which needn't be read from the
// file, and, if there are several readers, those that one of them decoded. A reader that is
// further behind reads and decodes its messages itself.
type decodedLog struct {
	limit    int                // of bytes
	mu       sync.Mutex         // guards what follows
	readers  map[*reader]uint64 // the next message of each
	messages []*decodedMessage  // by sequence
	bytes    int                // memory of the messages
}

type decodedMessage struct {
	seq   uint64
	bytes int

	// Of a message that was written while there were readers.
	segment uint64 // its first message; 0: the message was read from the file
	end     int64  // of the message in the segment
	epoch   int64

	once     sync.Once // guards what follows
	stamp    Stamp
	readings *fleetscore.Readings
	err      error
}

func (d *decodedLog) enter(r *reader) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readers == nil {
		d.readers = map[*reader]uint64{}
	}
	d.readers[r] = r.from
}

func (d *decodedLog) leave(r *reader) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.readers, r)
	d.forget()
}

// passed notes that a reader has taken the messages before its next one.
func (d *decodedLog) passed(r *reader) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readers[r] = r.from
	d.forget()
}

// forget drops messages that no reader is going to read, and the oldest of too many.
func (d *decodedLog) forget() {
	n, least := 0, d.least()
	for n < len(d.messages) && (d.messages[n].seq < least || d.bytes > d.limit && len(d.messages)-n > 1) {
		d.bytes -= d.messages[n].bytes
		n++
	}
	d.messages = slices.Delete(d.messages, 0, n)
}

// least is the first message that a reader is going to read.
func (d *decodedLog) least() (seq uint64) {
	seq = 1<<64 - 1
	for _, next := range d.readers {
		seq = min(seq, next)
	}
	return seq
}

// wrote takes a message that was synced, if there are readers. It is called in the order of
// the messages.
func (d *decodedLog) wrote(m *decodedMessage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.readers) == 0 {
		return
	}
	m.once.Do(func() {}) // it needn't be decoded
	m.bytes = memoryOf(m.readings)
	d.messages, d.bytes = append(d.messages, m), d.bytes+m.bytes
	d.forget()
}

// written returns a message that was kept when it was written; nil if it has to be read from the file.
func (d *decodedLog) written(seq uint64) *decodedMessage {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i, found := d.find(seq); found && d.messages[i].segment > 0 {
		return d.messages[i]
	}
	return nil
}

func (d *decodedLog) find(seq uint64) (at int, found bool) {
	return slices.BinarySearchFunc(d.messages, seq, func(m *decodedMessage, seq uint64) int { return cmp.Compare(m.seq, seq) })
}

// decode decodes a message that was read from the file, once for all readers that are near each other.
func (d *decodedLog) decode(rec record) (Stamp, *fleetscore.Readings, error) {
	m := d.message(rec)
	if m == nil {
		return Decode(rec.payload)
	}
	m.once.Do(func() {
		m.stamp, m.readings, m.err = Decode(rec.payload)
		d.weigh(m)
	})
	return m.stamp, m.readings, m.err
}

// message returns the place of a message among those that are kept; nil if it isn't to be kept.
func (d *decodedLog) message(rec record) *decodedMessage {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, found := d.find(rec.seq)
	if found {
		return d.messages[i]
	}
	bytes := messageBytes + decodedFactor*len(rec.payload)
	if len(d.readers) < 2 || i == 0 && d.bytes+bytes > d.limit {
		return nil
	}
	m := &decodedMessage{seq: rec.seq, bytes: bytes}
	d.messages, d.bytes = slices.Insert(d.messages, i, m), d.bytes+m.bytes
	d.forget()
	return m
}

// weigh notes how much memory a message takes that was decoded.
func (d *decodedLog) weigh(m *decodedMessage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i, found := d.find(m.seq); found && d.messages[i] == m {
		d.bytes -= m.bytes
		m.bytes = memoryOf(m.readings)
		d.bytes += m.bytes
		d.forget()
	}
}

// memoryOf estimates the memory of a message.
func memoryOf(r *fleetscore.Readings) int {
	n := messageBytes
	if r == nil {
		return n
	}
	const ofString = 16
	n += 4*len(r.KeyIndex) + 8*len(r.Times) + ofString*(len(r.Keys)+len(r.IDs))
	for _, k := range r.Keys {
		n += len(k)
	}
	for _, id := range r.IDs {
		n += len(id)
	}
	for i := range r.Columns {
		c := &r.Columns[i]
		n += messageBytes/4 + 8*len(c.Numbers) + ofString*len(c.Strings) + len(c.Present)
		for _, s := range c.Strings {
			n += len(s)
		}
	}
	return n
}
