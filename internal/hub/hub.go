// Package hub is the durable, ordered, time-retained log of readings between
// the gateway, which appends, and the aggregators, which read.
//
// A hub has a fixed number of partitions; each is a sequence of messages, and a
// message is a batch of readings or a tick. The caller decides which partition a key
// belongs to (fleetscore.SplitShards), how readings are batched, and which arrival
// times and ticks there are. The hub only keeps the messages in order and returns
// them.
//
// Open keeps the log in a folder that one process holds at a time
// (docs/formats/hub-log.md). The bytes of a message are described in
// docs/formats/hub-message.md; Encode and Decode are that format.
//
// All methods of a Hub may be called concurrently.
package hub

import (
	"context"

	"github.com/fleetscore/fleetscore"
)

// Stamp says where a message came from and when.
type Stamp struct {
	// Source names the way by which the message came. Each source has its own
	// watermark, and a tick applies to its own source only.
	Source fleetscore.Source
	// Arrived is when the server took the message, by the clock that the server
	// trusts. Within a partition Arrived never decreases.
	Arrived fleetscore.Micros
	// Unsure is how much later than Arrived the message may really have arrived. It
	// is 0 unless the server did not trust its wall clock at that time.
	Unsure fleetscore.Micros
	// Position says up to which place of its own log the source's readings of this
	// partition are stored, this message included, for a source that reads a log. It goes on
	// there after a restart. The hub doesn't read it; empty for other sources.
	Position string
}

// MaxPositionBytes is the longest position that a message can carry.
const MaxPositionBytes = 256

// Message is one entry of a partition.
type Message struct {
	Stamp
	Partition int
	Seq       uint64 // the message's number in the partition, from 1, without gaps between appends
	Epoch     int64  // a random id above 0 of the opening of the hub that wrote it; 0 if damage made it unknown
	Tick      bool   // no readings: at Arrived, Source was healthy and had sent nothing more
	Readings  *fleetscore.Readings
}

// Stats describes the content of one partition.
type Stats struct {
	Partition int
	First     uint64 // sequence of the oldest message still there; Last+1 if there is none
	Last      uint64 // sequence of the latest message ever appended; 0 before the first
	Messages  uint64
	SizeBytes uint64
	// Oldest is about when the oldest message arrived; 0 if there is none. A hub may give a time shortly before.
	Oldest fleetscore.Micros
	// OverdueBytes are kept although they are beyond the retention, because Deps.Needed says so. An estimate.
	OverdueBytes int64
	Damage       []Damage // messages that are known to be lost, in the order they were found
}

// Damage is a range of messages that were acknowledged and can't be read any more.
type Damage struct {
	First  uint64
	Last   uint64
	Reason string
}

// Hub is a log of readings. Open returns the one in a folder, natshub.Open the one on NATS
// servers, hubtest.New the one for tests; hubtest.Run checks an implementation.
type Hub interface {
	// ID is the hub's identity: a random number above 0 that is chosen when the hub
	// is made. A sequence has a meaning only together with this number.
	ID() int64

	// Partitions is how many partitions there are.
	Partitions() int

	// Append adds messages, one for each of the readings, in their order, and returns
	// the sequence of the last one once all are synced to disk; without readings (or
	// with a nil) it adds a tick. The hub may hand the readings themselves to its readers, so nobody changes them any more,
	// even after an error. An implementation
	// that several processes share may have other processes' messages between them. After an error the messages may or may not be there, so
	// a caller that repeats an Append must expect repeated messages.
	//
	// Errors: Invalid if the partition doesn't exist, the source has no name or one
	// that is over fleetscore.MaxSourceBytes, or the message is over
	// MaxMessageBytes; Exhausted if the disk is full; Unavailable if the hub is
	// closed or didn't answer.
	Append(ctx context.Context, partition int, stamp Stamp, readings ...*fleetscore.Readings) (seq uint64, err error)

	// Read calls fn with every message of the partition from the first with Seq >=
	// from (0 means the oldest), in order, each once, and then waits for more. If
	// older messages were removed by the retention, the first Seq is greater than
	// from. Damaged messages are skipped; Stats lists them, and the next message's
	// Seq shows the gap. It returns fn's error, or the context's, or Unavailable once
	// the hub is closed or its disk fails, or Invalid if a message has an unknown
	// format. fn must not change the readings, because other readers may have the same ones.
	Read(ctx context.Context, partition int, from uint64, fn func(Message) error) error

	// Stats describes the partitions, in order.
	Stats(ctx context.Context) ([]Stats, error)

	// Reaches returns the last message of a partition that an epoch wrote and that is
	// still there; false if there is none. A reader remembers the epoch of the last
	// message that it took. If the log was lost, damaged or replaced by an older copy,
	// that epoch is missing or ends earlier, so the reader notices that the log isn't the
	// one that it read.
	Reaches(ctx context.Context, partition int, epoch int64) (last uint64, ok bool, err error)

	// Close ends running reads and releases the folder.
	Close() error
}

// MaxMessageBytes is the largest encoded message a hub takes. Writers cut
// batches well below it, to about a megabyte.
const MaxMessageBytes = 8 << 20
