package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Bounds of calls to a cloud: maxTries of each, with pauses that double from
// firstPause and vary by half; a call without a stream ends after callLimit.
const (
	maxTries   = 5
	firstPause = 200 * time.Millisecond
	callLimit  = 2 * time.Minute
)

// verdict is the meaning of a cloud's error.
type verdict struct {
	kind  fleetscore.Kind
	again bool // the same call may succeed soon
	hint  string
	err   error
}

func (v verdict) error(op, subject string) error {
	e := fleetscore.Errorf(v.kind, op, subject, "%w", v.err)
	e.Hint = v.hint
	return e
}

// answer holds what a cloud's SDK says about an error.
type answer struct {
	status int    // of HTTP; 0 if there was no answer
	code   string // the service's code, such as NoSuchBucket
	err    error  // the error that people see
}

// judgeStatus says what the status of an answer means. Each engine first checks the
// codes of its own service.
func judgeStatus(a answer) verdict {
	switch {
	case a.status == 0:
		return judgeNetwork(a.err)
	case a.status == http.StatusNotFound:
		return verdict{kind: fleetscore.NotFound, err: a.err}
	case a.status == http.StatusPreconditionFailed, a.status == http.StatusConflict:
		return verdict{kind: fleetscore.Conflict, err: a.err}
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden:
		return verdict{kind: fleetscore.Unavailable, err: a.err,
			hint: "access is denied: check which credentials are used (docs/configuration.md) and that they may list, read, write and delete here"}
	case a.status == http.StatusTooManyRequests:
		return verdict{kind: fleetscore.Unavailable, again: true, err: a.err, hint: "the service asks for fewer requests; Fleetscore tries again by itself"}
	case a.status == http.StatusInsufficientStorage:
		return verdict{kind: fleetscore.Exhausted, err: a.err, hint: "the service has no more room: free some space"}
	case a.status == http.StatusNotImplemented:
		return verdict{kind: fleetscore.Invalid, err: a.err, hint: "the service doesn't support this request; conditional writes are needed (docs/decisions/0005-clouds.md)"}
	case a.status == http.StatusRequestTimeout, a.status >= 500:
		return verdict{kind: fleetscore.Unavailable, again: true, err: a.err, hint: "the service has a failure; Fleetscore tries again by itself"}
	case a.status >= 300 && a.status < 400:
		return verdict{kind: fleetscore.Invalid, err: a.err, hint: "the bucket is in another place: check region and endpoint"}
	}
	return verdict{kind: fleetscore.Internal, err: a.err}
}

// judgeNetwork judges a call that got no answer.
func judgeNetwork(err error) verdict {
	v := verdict{kind: fleetscore.Unavailable, again: true, err: err, hint: "the service can't be reached; Fleetscore tries again by itself"}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		v.hint = "the host doesn't exist: check region, account and endpoint, and the network"
	}
	return v
}

// try makes a call until it succeeds, can't succeed, or was tried often enough.
func (c *cloud) try(ctx context.Context, op string, name fleetscore.BlobName, call func(context.Context) error) error {
	pause := c.pause
	for n := 1; ; n++ {
		err := call(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v := c.svc.judge(err)
		if !v.again || n == maxTries {
			return v.error(op, c.subject(name))
		}
		if err := rest(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
}

// limited is try for calls without a stream, each of which ends after callLimit.
func (c *cloud) limited(ctx context.Context, op string, name fleetscore.BlobName, call func(context.Context) error) error {
	return c.try(ctx, op, name, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeoutCause(ctx, callLimit, stalled{callLimit})
		defer cancel()
		return call(ctx)
	})
}

func rest(ctx context.Context, pause time.Duration) error {
	t := time.NewTimer(pause/2 + rand.N(pause))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
