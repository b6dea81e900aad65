// Package budget bounds what loading one file may take: memory, work and time. All
// that a file can ask for is charged to one Budget before it is done, so that a small
// file can't ask for much, however its parts refer to each other.
//
// A Budget starts no goroutine and reads no clock: time comes from a context. It
// belongs to one goroutine.
package budget

import (
	"context"
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

const (
	// Times is how many sizes of the contents memory may become.
	Times = 4
	// MinMemory may be taken in any case: ensembles of thousands of tiny estimators
	// need more than four times their size.
	MinMemory = 8 << 20
	// MaxMemory is never exceeded, however large the file is.
	MaxMemory = 4 << 30

	// MinWork may be done in any case, in units of about a nanosecond.
	MinWork = 1 << 27
	// WorkPerByte is allowed for each byte of the contents besides.
	WorkPerByte = 256

	// often is how much work is done between two looks at the time.
	often = 1 << 18
)

// Limits are a caller's. Zero stands for what the package itself allows; a limit
// never allows more than that.
type Limits struct {
	Memory int64 // bytes
	Work   int64 // units of about a nanosecond
}

// Budget is what is left.
type Budget struct {
	memory  int // bytes that may still be allocated
	work    int // units that may still be done
	look    int // the work left at which the time is looked at next
	granted int // bytes that were allowed
	effort  int // units that were allowed
	size    int // bytes of the contents
	limits  Limits
	ctx     context.Context // of one call of Load; nil for no end
	err     error           // the first refusal
}

// New is the budget for contents of a size, which ends with the context. Contents
// that were unpacked from a file count as one of the sizes that they allow.
func New(ctx context.Context, limits Limits, size int, unpacked bool) Budget {
	times := Times
	if unpacked {
		times--
	}
	b := Budget{size: size, limits: limits, granted: bound(MinMemory, times, size, MaxMemory, limits.Memory), effort: bound(MinWork, WorkPerByte, size, math.MaxInt64, limits.Work)}
	if ctx != nil && ctx.Done() != nil {
		b.ctx = ctx
	}
	b.memory, b.work = b.granted, b.effort
	b.look = b.work - often
	return b
}

// bound is times the size, but not below the least nor above the most.
func bound(least, times, size, most int, limit int64) int {
	n := max(least, times*size)
	if times > Times { // work: the least and as much a byte
		n = least + times*size
	}
	n = min(n, most)
	if limit > 0 && limit < int64(n) {
		n = int(limit)
	}
	return n
}

// Charge takes n bytes of memory, before they are allocated.
func (b *Budget) Charge(n int) error {
	if n < 0 || n > b.memory {
		return b.poor(n)
	}
	b.memory -= n
	return nil
}

func (b *Budget) poor(n int) error {
	if b.err == nil {
		b.err = refusal.New(refusal.TooLarge, "reading it needs more than %d bytes of memory, too many for contents of %d", b.granted, b.size).
			WithHint("%s", b.hint(b.limits.Memory))
	}
	b.memory = min(b.memory, 0)
	return b.err
}

func (b *Budget) hint(limit int64) string {
	if limit > 0 {
		return "allow more, or train a smaller model"
	}
	return "no trained model looks like this; write it again with pickle.dump"
}

// Limit is the caller's limit of memory; 0 for none.
func (b *Budget) Limit() int64 { return b.limits.Memory }

// Affords reports whether n bytes are left.
func (b *Budget) Affords(n int) bool { return n <= b.memory }

// Refund gives back n bytes that are in use no more.
func (b *Budget) Refund(n int) { b.memory += n }

// Spend does n units of work: an elementary step of a computation, or a byte that is
// decoded, is one.
func (b *Budget) Spend(n int) error {
	b.work -= n
	if n < 0 || b.work < b.look {
		return b.tired(n)
	}
	return nil
}

// Spent reports whether something was refused, so that whatever was read means
// nothing. It is quicker than Spend's error where that is asked for often.
func (b *Budget) Spent() bool { return b.work < 0 }

// tired is the rest of Spend: the work may have ended, or the time.
func (b *Budget) tired(n int) error {
	if b.err != nil {
		b.work, b.look = -1, 0
		return b.err
	}
	if n < 0 || b.work < 0 {
		b.work, b.look = -1, 0
		b.err = refusal.New(refusal.TooLarge, "reading it takes more work than contents of %d bytes may", b.size).
			WithHint("%s", b.hint(b.limits.Work))
		return b.err
	}
	b.look = max(0, b.work-often)
	return b.Late()
}

// Late is an error once the context has ended.
func (b *Budget) Late() error {
	if b.err != nil || b.ctx == nil {
		return b.err
	}
	if err := b.ctx.Err(); err != nil {
		b.err = refusal.New(refusal.Late, "the time for loading it ended: %w", context.Cause(b.ctx)).
			WithHint("give it more time, or train a smaller model")
		b.work, b.look = -1, 0
	}
	return b.err
}

// Err is the first refusal.
func (b *Budget) Err() error { return b.err }

// Used is how much memory was charged and how much work was done until now.
func (b *Budget) Used() (memory, work int64) {
	return int64(b.granted - b.memory), int64(b.effort - b.work)
}

// Mark is a place to go back to.
type Mark struct{ memory, work int }

// Mark remembers what is left.
func (b *Budget) Mark() Mark { return Mark{b.memory, b.work} }

// Since is what was taken since a mark.
func (b *Budget) Since(m Mark) Mark { return Mark{m.memory - b.memory, m.work - b.work} }

// Take takes what was taken once before; false if so much isn't left.
func (b *Budget) Take(m Mark) bool {
	if b.memory < m.memory || b.work < m.work {
		return false
	}
	b.memory -= m.memory
	_ = b.Spend(m.work) // whose error Err keeps
	return true
}
