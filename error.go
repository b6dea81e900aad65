package fleetscore

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Kind classifies an error by what can be done about it. The list is closed and
// append-only: kinds cross the wire.
type Kind uint8

// The kinds of error.
const (
	Internal    Kind = iota // a defect of Fleetscore, or a cause that is not classified
	Invalid                 // the input is wrong; sending it again won't help
	NotFound                // the subject doesn't exist
	Conflict                // the subject is not in the state that the caller assumed
	Unavailable             // an engine or peer didn't answer; the caller may try again
	Exhausted               // a limit was reached: disk, memory, size, rate
	Corrupt                 // stored bytes are not what was written
)

// kinds maps a kind to its name, HTTP status, exit code and retry rule. The HTTP
// statuses are numbers, so that a program that only reads models doesn't link a web
// server.
var kinds = [...]struct {
	name  string
	http  int
	exit  int
	retry bool
}{
	Internal:    {"internal", 500, 1, false},
	Invalid:     {"invalid", 400, 10, false},
	NotFound:    {"not_found", 404, 12, false},
	Conflict:    {"conflict", 409, 13, false},
	Unavailable: {"unavailable", 503, 11, true},
	Exhausted:   {"exhausted", 507, 1, true}, // insufficient storage
	Corrupt:     {"corrupt", 500, 1, false},
}

// String returns the kind's name on the wire, such as "not_found".
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k].name
	}
	return "internal"
}

// ParseKind returns the kind of that wire name; unknown names are Internal.
func ParseKind(name string) Kind {
	for k := range kinds {
		if kinds[k].name == name {
			return Kind(k)
		}
	}
	return Internal
}

// HTTPStatus is the status an API answers with for this kind.
func (k Kind) HTTPStatus() int { return kinds[min(int(k), len(kinds)-1)].http }

// ExitCode is the status a command ends with for this kind.
func (k Kind) ExitCode() int { return kinds[min(int(k), len(kinds)-1)].exit }

// Retryable tells whether the same call may succeed later, unchanged.
func (k Kind) Retryable() bool { return kinds[min(int(k), len(kinds)-1)].retry }

// Error is the error that packages return to each other: the operation, the kind, the
// subject that the operation failed on, the cause, and what to do about it.
type Error struct {
	Op      string // what was being done, e.g. "read model"
	Kind    Kind
	Subject string // on what, e.g. a blob name or job identifier; may be empty
	Err     error  // why
	Hint    string // what to do; may be empty
}

// Error formats "op subject: cause (hint)".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Subject != "" {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(e.Subject)
	}
	if e.Err != nil {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(e.Err.Error())
	}
	if e.Hint != "" {
		b.WriteString(" (")
		b.WriteString(e.Hint)
		b.WriteByte(')')
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Wrap adds operation and subject to a cause and keeps the cause's kind. It
// returns nil for a nil cause.
func Wrap(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Kind: KindOf(err), Subject: subject, Err: err}
}

// Errorf makes an error whose cause is the formatted message; %w wraps.
func Errorf(kind Kind, op, subject, format string, args ...any) *Error {
	return &Error{Op: op, Kind: kind, Subject: subject, Err: fmt.Errorf(format, args...)}
}

// WithHint sets what to do about the error and returns it.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// KindOf returns the kind of the outermost Error in the chain. The end of a context
// is Unavailable; every other error is Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err is of that kind.
func (k Kind) Is(err error) bool { return err != nil && KindOf(err) == k }

// WithoutNumbers replaces each number in a message by 0. Messages that differ only in
// places, times and sizes become equal, so that they can be grouped by cause.
func WithoutNumbers(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < '0' || c > '9' {
			b.WriteByte(c)
		} else if i == 0 || s[i-1] < '0' || s[i-1] > '9' {
			b.WriteByte('0')
		}
	}
	return b.String()
}
