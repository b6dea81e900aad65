// Package hubtest holds a hub in memory for tests of other rooms, and the suite
// that every implementation of hub.Hub must pass. It is for tests only. The hub
// in memory may be used concurrently; it starts no goroutines.
package hubtest

import (
	"context"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

// Memory is a hub in memory. Messages are kept encoded, so that what a reader
// gets is what a real hub would give it.
type Memory struct {
	mu         sync.Mutex // guards what follows
	partitions []partition
	appendErr  error
	closed     bool
	changed    chan struct{} // closed and replaced at every change
}

type partition struct {
	first    uint64 // sequence of messages[0]
	messages [][]byte
}

// New returns an empty hub in memory.
func New(partitions int) *Memory {
	m := &Memory{partitions: make([]partition, partitions), changed: make(chan struct{})}
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
		p.messages = p.messages[1:]
	}
}

// Messages returns all messages of a partition that are there now.
func (m *Memory) Messages(partition int) []hub.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &m.partitions[partition]
	var out []hub.Message
	for i := range p.messages {
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
	return hub.Message{Stamp: stamp, Partition: number, Seq: seq, Tick: r == nil, Readings: r}, err
}

// Partitions implements hub.Hub.
func (m *Memory) Partitions() int { return len(m.partitions) }

// Append implements hub.Hub.
func (m *Memory) Append(ctx context.Context, partition int, stamp hub.Stamp, r *fleetscore.Readings) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fleetscore.Wrap("append to hub", "", err)
	}
	if err := m.check(partition); err != nil {
		return 0, err
	}
	if !stamp.Source.Valid() {
		return 0, fleetscore.Errorf(fleetscore.Invalid, "append to hub", "", "%q is no name of a source", stamp.Source)
	}
	data := hub.Encode(nil, stamp, r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, errClosed()
	}
	if m.appendErr != nil {
		return 0, m.appendErr
	}
	p := &m.partitions[partition]
	p.messages = append(p.messages, data)
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
	return fleetscore.Errorf(fleetscore.Unavailable, "use hub", "", "it is closed")
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
		for _, b := range p.messages {
			s.SizeBytes += uint64(len(b))
		}
		out[i] = s
	}
	return out, nil
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
