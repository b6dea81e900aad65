// Package hubtest holds a hub in memory for tests of other rooms, and the suite
// that every implementation of hub.Hub must pass. It is for tests only. The hub
// in memory may be used concurrently; it starts no goroutines.
package hubtest

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// Memory is a hub in memory. Messages are kept encoded, so that a reader gets the
// same as from a real hub.
type Memory struct {
	id int64

	mu         sync.Mutex // guards what follows
	epoch      int64
	partitions []partition
	appendErr  error
	closed     bool
	changed    chan struct{} // closed and replaced at every change
}

type partition struct {
	first    uint64 // sequence of messages[0]
	messages [][]byte
	epochs   []int64 // of the messages
}

// New returns an empty hub in memory.
func New(partitions int) *Memory {
	m := &Memory{id: rand.Int64N(math.MaxInt64) + 1, epoch: rand.Int64N(math.MaxInt64) + 1, partitions: make([]partition, partitions), changed: make(chan struct{})}
	for i := range m.partitions {
		m.partitions[i].first = 1
	}
	return m
}

// FailAppends makes every later Append fail with err, storing nothing, until it
// is called with nil.
func (m *Memory) FailAppends(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.appendErr = err
}

// Expire drops the partition's messages before seq, as retention would.
func (m *Memory) Expire(partition int, seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &m.partitions[partition]
	for p.first < seq && len(p.messages) > 0 {
		p.first++
		p.messages, p.epochs = p.messages[1:], p.epochs[1:]
	}
}

// Reopen begins a new epoch, as closing and opening a real hub does. A partition's
// messages after keep[partition] are lost with it, as on a damaged disk, and their
// sequences are given out again; partitions without a number lose nothing.
func (m *Memory) Reopen(keep ...uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch = rand.Int64N(math.MaxInt64) + 1
	for i, last := range keep {
		p := &m.partitions[i]
		n := max(0, int(last+1)-int(p.first))
		p.messages, p.epochs = p.messages[:n:n], p.epochs[:n:n]
	}
}

// Copy returns a hub with the same identity and messages, as a copy of a folder
// that is opened.
func (m *Memory) Copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := New(len(m.partitions))
	out.id = m.id
	for i, p := range m.partitions {
		out.partitions[i] = partition{p.first, slices.Clone(p.messages), slices.Clone(p.epochs)}
	}
	return out
}

// Lose makes the messages from first to last of a partition unreadable.
func (m *Memory) Lose(partition int, first, last uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &m.partitions[partition]
	for seq := first; seq <= last; seq++ {
		p.messages[seq-p.first] = nil
	}
}

// Messages returns all messages of a partition that are there now.
func (m *Memory) Messages(partition int) []hub.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &m.partitions[partition]
	var out []hub.Message
	for i := range p.messages {
		if p.messages[i] == nil {
			continue
		}
		msg, err := p.decode(partition, p.first+uint64(i))
		if err != nil {
			panic(err) // it was encoded by us
		}
		out = append(out, msg)
	}
	return out
}

func (p *partition) decode(number int, seq uint64) (hub.Message, error) {
	stamp, r, err := hub.Decode(p.messages[seq-p.first])
	return hub.Message{Stamp: stamp, Partition: number, Seq: seq, Epoch: p.epochs[seq-p.first], Tick: r == nil, Readings: r}, err
}

// ID implements hub.Hub.
func (m *Memory) ID() int64 { return m.id }

// Partitions implements hub.Hub.
func (m *Memory) Partitions() int { return len(m.partitions) }

// Append implements hub.Hub.
func (m *Memory) Append(ctx context.Context, partition int, stamp hub.Stamp, readings ...*fleetscore.Readings) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fleetscore.Wrap("append to hub", "", err)
	}
	if err := m.check(partition); err != nil {
		return 0, err
	}
	if !stamp.Source.Valid() {
		return 0, fleetscore.Errorf(fleetscore.Invalid, "append to hub", "", "%q is not a valid name of a source", stamp.Source)
	}
	if len(readings) == 0 {
		readings = []*fleetscore.Readings{nil}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, errClosed()
	}
	if m.appendErr != nil {
		return 0, m.appendErr
	}
	p := &m.partitions[partition]
	for _, r := range readings {
		p.messages, p.epochs = append(p.messages, hub.Encode(nil, stamp, r)), append(p.epochs, m.epoch)
	}
	close(m.changed)
	m.changed = make(chan struct{})
	return p.first + uint64(len(p.messages)) - 1, nil
}

func (m *Memory) check(partition int) error {
	if partition < 0 || partition >= len(m.partitions) {
		return fleetscore.Errorf(fleetscore.Invalid, "use hub", "", "partition %d of %d doesn't exist", partition, len(m.partitions))
	}
	return nil
}

func errClosed() error {
	return fleetscore.Errorf(fleetscore.Unavailable, "use hub", "", "the hub is closed")
}

// Read implements hub.Hub.
func (m *Memory) Read(ctx context.Context, partition int, from uint64, fn func(hub.Message) error) error {
	if err := m.check(partition); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.mu.Lock()
		p := &m.partitions[partition]
		from = max(from, p.first)
		for from < p.first+uint64(len(p.messages)) && p.messages[from-p.first] == nil {
			from++
		}
		var (
			msg hub.Message
			err error
		)
		there := from < p.first+uint64(len(p.messages))
		if there {
			msg, err = p.decode(partition, from)
		}
		closed, changed := m.closed, m.changed
		m.mu.Unlock()

		switch {
		case closed:
			return errClosed()
		case err != nil:
			return err
		case there:
			if err := fn(msg); err != nil {
				return err
			}
			from++
		default:
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
	}
}

// Stats implements hub.Hub.
func (m *Memory) Stats(ctx context.Context) ([]hub.Stats, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]hub.Stats, len(m.partitions))
	for i := range m.partitions {
		p := &m.partitions[i]
		s := hub.Stats{Partition: i, First: p.first, Last: p.first + uint64(len(p.messages)) - 1, Messages: uint64(len(p.messages))}
		if len(p.messages) > 0 && p.messages[0] != nil {
			if first, err := p.decode(i, p.first); err == nil {
				s.Oldest = first.Arrived
			}
		}
		for j, b := range p.messages {
			seq := p.first + uint64(j)
			s.SizeBytes += uint64(len(b))
			if b == nil {
				s.Messages--
				s.Damage = append(s.Damage, hub.Damage{First: seq, Last: seq, Reason: "lost by the test"})
			}
		}
		out[i] = s
	}
	return out, nil
}

// Reaches implements hub.Hub.
func (m *Memory) Reaches(ctx context.Context, partition int, epoch int64) (last uint64, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	if err := m.check(partition); err != nil {
		return 0, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &m.partitions[partition]
	for i := len(p.epochs) - 1; i >= 0; i-- {
		if p.epochs[i] == epoch {
			return p.first + uint64(i), true, nil
		}
	}
	return 0, false, nil
}

// Close implements hub.Hub.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		close(m.changed)
		m.changed = make(chan struct{})
	}
	return nil
}
