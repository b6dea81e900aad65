// Package budget bounds the memory, work and time of loading one file. Everything that
// a file can cause is charged to one Budget before it is done. So a small file can't
// cause much, however its parts refer to each other.
//
// A Budget starts no goroutine and reads no clock: the time limit comes from a context.
// One goroutine may use a Budget.
package budget

import (
	"context"
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

const (
	// Times is how many times the content's size the memory may reach.
	Times = 4
	// MinMemory is allowed for every file: ensembles of thousands of tiny estimators
	// need more than four times their size.
	MinMemory = 8 << 20
	// MaxMemory is never exceeded, whatever the file's size is.
	MaxMemory = 4 << 30

	// MinWork is allowed for every file, in units of about a nanosecond.
	MinWork = 1 << 27
	// WorkPerByte is allowed for each byte of the content in addition.
	WorkPerByte = 256

	// often is the work that is done between two checks of the context.
	often = 1 << 18
)

// Limits are set by a caller. Zero means the package's own limit, which a caller's
// limit can't raise.
type Limits struct {
	Memory int64 // bytes
	Work   int64 // units of about a nanosecond
}

// Budget is the memory and work that are left.
type Budget struct {
	memory  int // bytes that may still be allocated
	work    int // units that may still be done
	look    int // the context is checked next when this much work is left
	granted int // bytes that were allowed
	effort  int // units that were allowed
	size    int // bytes of the content
	limits  Limits
	ctx     context.Context // the context of one call of Load; nil for no time limit
	err     error           // the first refusal
}

// New returns the budget for content of a size. It ends with the context. If the
// content was unpacked from a file, its own bytes are part of the memory that it may
// take.
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

// bound returns times × size, within the limits least and most.
func bound(least, times, size, most int, limit int64) int {
	n := max(least, times*size)
	if times > Times { // work: times × size in addition to the least
		n = least + times*size
	}
	n = min(n, most)
	if limit > 0 && limit < int64(n) {
		n = int(limit)
	}
	return n
}

// Charge takes n bytes of memory from the budget. Call it before the memory is
// allocated.
func (b *Budget) Charge(n int) error {
	if n < 0 || n > b.memory {
		return b.poor(n)
	}
	b.memory -= n
	return nil
}

func (b *Budget) poor(n int) error {
	if b.err == nil {
		b.err = refusal.New(refusal.TooLarge, "reading the file needs more than %d bytes of memory, which is too much for a content of %d bytes", b.granted, b.size).
			WithHint("%s", b.hint(b.limits.Memory))
	}
	b.memory = min(b.memory, 0)
	return b.err
}

func (b *Budget) hint(limit int64) string {
	if limit > 0 {
		return "allow more memory, or train a smaller model"
	}
	return "trained models need less memory, so the file may be damaged; write the model again with pickle.dump"
}

// Limit returns the caller's limit of memory, or 0 if there is none.
func (b *Budget) Limit() int64 { return b.limits.Memory }

// Affords reports whether n bytes are left.
func (b *Budget) Affords(n int) bool { return n <= b.memory }

// Refund gives n bytes back to the budget when they aren't used any more.
func (b *Budget) Refund(n int) { b.memory += n }

// Spend takes n units of work from the budget. One unit is an elementary step of a
// computation, or a byte that is decoded.
func (b *Budget) Spend(n int) error {
	b.work -= n
	if n < 0 || b.work < b.look {
		return b.tired(n)
	}
	return nil
}

// Spent reports whether something was refused; then the values read are invalid. It is
// faster than comparing Spend's error.
func (b *Budget) Spent() bool { return b.work < 0 }

// tired is the slow part of Spend: the work or the time may have run out.
func (b *Budget) tired(n int) error {
	if b.err != nil {
		b.work, b.look = -1, 0
		return b.err
	}
	if n < 0 || b.work < 0 {
		b.work, b.look = -1, 0
		b.err = refusal.New(refusal.TooLarge, "reading the file takes more work than is allowed for a content of %d bytes", b.size).
			WithHint("%s", b.hint(b.limits.Work))
		return b.err
	}
	b.look = max(0, b.work-often)
	return b.Late()
}

// Late returns an error if the context has ended.
func (b *Budget) Late() error {
	if b.err != nil || b.ctx == nil {
		return b.err
	}
	if err := b.ctx.Err(); err != nil {
		b.err = refusal.New(refusal.Late, "the time for loading the file ended: %w", context.Cause(b.ctx)).
			WithHint("allow more time, or train a smaller model")
		b.work, b.look = -1, 0
	}
	return b.err
}

// Err returns the first refusal, or nil.
func (b *Budget) Err() error { return b.err }

// Used returns the memory that was charged and the work that was done.
func (b *Budget) Used() (memory, work int64) {
	return int64(b.granted - b.memory), int64(b.effort - b.work)
}

// Mark is a state of a budget, or the difference of two states.
type Mark struct{ memory, work int }

// Mark returns the current state.
func (b *Budget) Mark() Mark { return Mark{b.memory, b.work} }

// Since returns what was taken since a mark.
func (b *Budget) Since(m Mark) Mark { return Mark{m.memory - b.memory, m.work - b.work} }

// Take takes an amount that Since returned. It returns false if not enough is left.
func (b *Budget) Take(m Mark) bool {
	if b.memory < m.memory || b.work < m.work {
		return false
	}
	b.memory -= m.memory
	_ = b.Spend(m.work) // Err keeps the error
	return true
}
