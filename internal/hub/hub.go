// Package hub is the durable, ordered, time-retained log of readings between
// the gateway, which appends, and the aggregators, which read.
//
// A hub has a fixed number of partitions; each is a sequence of messages, and a
// message is a batch of readings or a tick. Which partition a key belongs to is
// decided by the caller (fleetscore.SplitShards), and so are batching, arrival
// times and ticks: the hub only keeps what it is given, in order, and hands it
// out again.
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
	// Source is the way in that the message came by. Watermarks are kept for each
	// source apart, and a tick speaks for its own source alone.
	Source fleetscore.Source
	// Arrived is when the server took the message, by the clock that it trusts.
	// Within a partition it never goes back.
	Arrived fleetscore.Micros
	// Unsure is how much later than Arrived it may truly have been. It is 0 unless
	// the server did not trust its wall clock just then.
	Unsure fleetscore.Micros
}

// Message is one entry of a partition.
type Message struct {
	Stamp
	Partition int
	Seq       uint64 // place in the partition, from 1, without gaps between appends
	Epoch     int64  // id of the opening of the hub that wrote it; see Epoch
	Tick      bool   // no readings: as of Arrived nothing more had come from Source and it was healthy
	Readings  *fleetscore.Readings
}

// Stats describes what one partition holds.
type Stats struct {
	Partition int
	First     uint64 // sequence of the oldest message still there; Last+1 if there is none
	Last      uint64 // sequence of the latest message ever appended; 0 before the first
	Messages  uint64
	SizeBytes uint64
	Damage    []Damage // messages that are known to be lost, in the order they were found
	Epochs    []Epoch  // who wrote the messages that are there, in their order
}

// Damage is a range of messages that were acknowledged and can't be read any more.
type Damage struct {
	First  uint64
	Last   uint64
	Reason string
}

// Epoch is one opening of a hub: a random id above 0 that no other opening of any
// hub has, and the messages that it wrote. A reader that remembers the epoch of the
// last message it took can tell, after a folder was lost, damaged or replaced by an
// older copy, whether the log still is the one that it read: the epoch is there and
// reaches as far. 0 is an epoch that isn't known, because it was damaged.
type Epoch struct {
	ID    int64
	First uint64
	Last  uint64
}

// Hub is a log of readings. It is implemented by Open and, for tests,
// by hubtest.New; hubtest.Run checks an implementation.
type Hub interface {
	// ID is the hub's identity: a random number above 0, made with the hub, that a
	// sequence belongs to.
	ID() int64

	// Partitions is how many partitions there are.
	Partitions() int

	// Append adds messages, one for each of the readings, in their order and with
	// nothing between them, and returns the sequence of the last one once all are
	// synced to disk; without readings (or with a nil) it adds a tick. The hub does
	// not keep the readings. On an error the messages may or may not be there, so
	// whoever repeats an Append must tolerate repeats.
	//
	// Errors: Invalid if the partition doesn't exist, the source has no name or one
	// that is over fleetscore.MaxSourceBytes, or the message is over
	// MaxMessageBytes; Exhausted if the disk is full; Unavailable if the hub is
	// closed or didn't answer.
	Append(ctx context.Context, partition int, stamp Stamp, readings ...*fleetscore.Readings) (seq uint64, err error)

	// Read calls fn with every message of the partition from the first with
	// Seq >= from (0 means the oldest), in order, each once, and then waits for
	// more. If older messages are gone by age, the first Seq is greater than
	// from. Messages that are damaged are passed over; they are found in
	// Stats, and the next message's Seq shows the gap. It returns fn's error, or
	// the context's, or Unavailable once the hub is closed or its disk fails, or
	// Invalid if a message has a format that isn't known. fn owns the message.
	Read(ctx context.Context, partition int, from uint64, fn func(Message) error) error

	// Stats describes the partitions, in order.
	Stats(ctx context.Context) ([]Stats, error)

	// Close ends running reads and releases the folder.
	Close() error
}

// MaxMessageBytes is the largest encoded message a hub takes. Writers cut
// batches well below it, to about a megabyte.
const MaxMessageBytes = 8 << 20
