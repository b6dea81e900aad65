package gateway

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fleetscore/fleetscore"
)

const (
	// firstBytes is the memory that a body of unknown or large size gets at first. It
	// gets more only when more bytes arrive; the announced size alone takes no
	// memory.
	firstBytes = 128 << 10
	// gzipBytes is about the memory that decompressing takes in addition to the text.
	gzipBytes = 64 << 10
	// spareBytes is the memory of a body that is used again, so that it needn't be cleared.
	spareBytes = firstBytes
	// zstdWindow is the largest window of zstd, which is about the memory that decompressing takes.
	zstdWindow = 8 << 20
	// If memory is short, a body is ended that has been arriving for gaveTime at less
	// than gaveRate bytes a second.
	gaveTime = 2 * time.Second
	gaveRate = 64 << 10
)

// intake counts the memory of all bodies, from their first byte until their readings
// are stored. Memory is counted when it is taken, not when a size is announced, so
// that a client that announces much and sends nothing takes nothing from others.
type intake struct {
	limit int64
	used  atomic.Int64
	spare sync.Pool // of *[]byte with spareBytes

	mu      sync.Mutex // guards what follows
	arrives map[*arrival]struct{}
}

// arrival is a body that is being received.
type arrival struct {
	of    *intake
	begun time.Time
	bytes int64 // counted in used

	text    atomic.Int64 // bytes that have arrived
	gone    atomic.Bool  // it was ended because memory was short
	control *http.ResponseController
}

func newIntake(limit int64) *intake {
	return &intake{limit: limit, arrives: make(map[*arrival]struct{})}
}

// buffer is memory of n bytes for a body.
func (i *intake) buffer(n int64) []byte {
	if n == spareBytes {
		if b, ok := i.spare.Get().(*[]byte); ok {
			return (*b)[:0]
		}
	}
	return make([]byte, 0, n)
}

// reuse takes the memory of a body whose text nobody needs any more.
func (i *intake) reuse(b []byte) {
	if cap(b) == spareBytes {
		i.spare.Put(&b)
	}
}

// begin notes a body that is going to be received.
func (i *intake) begin(w http.ResponseWriter) *arrival {
	a := &arrival{of: i, begun: time.Now(), control: http.NewResponseController(w)}
	i.mu.Lock()
	i.arrives[a] = struct{}{}
	i.mu.Unlock()
	return a
}

// end removes a body from the bodies that are being received, because it has arrived
// or won't arrive. Its memory is counted until release.
func (a *arrival) end() {
	a.of.mu.Lock()
	delete(a.of.arrives, a)
	a.of.mu.Unlock()
}

// release gives the body's memory back.
func (a *arrival) release() { a.take(-a.bytes) }

// take counts memory; false if there is none left. Then bodies that arrive slowly are
// ended, so that memory becomes free.
func (a *arrival) take(n int64) bool {
	if a.of.used.Add(n) > a.of.limit && n > 0 {
		a.of.used.Add(-n)
		a.of.clear()
		return false
	}
	a.bytes += n
	return true
}

// clear ends the bodies that arrive slowly.
func (i *intake) clear() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for a := range i.arrives {
		if age := time.Since(a.begun); age > gaveTime && float64(a.text.Load()) < age.Seconds()*gaveRate && !a.gone.Swap(true) {
			_ = a.control.SetReadDeadline(time.Unix(1, 0)) // ends its read; not all writers have deadlines
		}
	}
}

// errFull: there is no memory for more of a body.
var errFull = errors.New("too many readings wait to be stored")

// body receives a request's body. The caller releases the arrival once the readings
// are stored.
func (g *Gateway) body(w http.ResponseWriter, r *http.Request) (data []byte, a *arrival, status int, problem *Problem) {
	limit := g.cfg.MaxBodyBytes
	if r.ContentLength > limit {
		return nil, nil, http.StatusRequestEntityTooLarge, g.tooLarge()
	}
	a = g.intake.begin(w)
	defer a.end()
	defer func() {
		if problem != nil {
			a.release()
		}
	}()
	_ = a.control.SetReadDeadline(time.Now().Add(g.cfg.BodyTimeout)) // not all writers have deadlines
	var in io.Reader = http.MaxBytesReader(w, r.Body, limit)
	expect := r.ContentLength
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		if !a.take(gzipBytes) {
			return nil, a, http.StatusServiceUnavailable, g.full503()
		}
		zip, err := gzip.NewReader(in)
		if err != nil {
			return nil, a, http.StatusBadRequest, g.problem(fleetscore.Invalid, "", "the body is not valid gzip: %v", err)
		}
		in, expect = zip, -1
	case "zstd":
		if !a.take(zstdWindow) {
			return nil, a, http.StatusServiceUnavailable, g.full503()
		}
		dec, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, a, http.StatusBadRequest, g.problem(fleetscore.Invalid, "", "the body is not valid zstd: %v", err)
		}
		defer dec.Close()
		in, expect = dec, -1
	default:
		return nil, a, http.StatusUnsupportedMediaType, g.problem(fleetscore.Invalid, "send the body uncompressed, or as gzip or zstd", "the content encoding %q is unknown", encoding)
	}
	data, err := a.read(in, expect, limit)
	var tooBig *http.MaxBytesError
	switch {
	case err == nil:
		return data, a, 0, nil
	case errors.As(err, &tooBig):
		return nil, a, http.StatusRequestEntityTooLarge, g.tooLarge()
	case errors.Is(err, errFull):
		return nil, a, http.StatusServiceUnavailable, g.full503()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, a, http.StatusRequestTimeout, g.problem(fleetscore.Unavailable, "send the readings again", "the body didn't arrive within %s", g.cfg.BodyTimeout)
	case r.Context().Err() != nil:
		return nil, a, statusClientGone, g.problem(fleetscore.Unavailable, "", "the request ended early")
	}
	return nil, a, http.StatusBadRequest, g.problem(fleetscore.Invalid, "", "the body could not be read: %v", err)
}

func (g *Gateway) tooLarge() *Problem {
	return g.problem(fleetscore.Invalid, "send fewer readings per request", "the body is larger than %d bytes", g.cfg.MaxBodyBytes)
}

func (g *Gateway) full503() *Problem {
	return g.problem(fleetscore.Unavailable, "send the readings again in a moment", "%v", errFull)
}

// read reads a body of expect bytes, or of unknown size below 0. It takes at most
// about twice as much memory as bytes have arrived.
func (a *arrival) read(in io.Reader, expect, limit int64) ([]byte, error) {
	room := func(want int64) int64 {
		if expect >= 0 {
			want = min(want, expect+1) // one more byte, to find the end without growing
		}
		return min(want, limit+1)
	}
	first := room(firstBytes)
	if first > spareBytes/4 {
		first = spareBytes
	}
	if !a.take(first) {
		return nil, errFull
	}
	buf := a.of.buffer(first)
	for {
		if len(buf) == cap(buf) {
			if int64(len(buf)) > limit {
				return nil, &http.MaxBytesError{Limit: limit}
			}
			old, more := int64(cap(buf)), max(room(2*int64(cap(buf))), int64(cap(buf))+1)
			if !a.take(more) { // the old and the new buffer both exist during the copy
				return nil, errFull
			}
			grown := append(make([]byte, 0, more), buf...)
			a.of.reuse(buf)
			buf = grown
			a.take(-old)
		}
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		a.text.Add(int64(n))
		switch {
		case errors.Is(err, io.EOF):
			if int64(len(buf)) > limit {
				return nil, &http.MaxBytesError{Limit: limit}
			}
			return buf, nil
		case a.gone.Load():
			return nil, errFull
		case err != nil:
			return nil, err
		}
	}
}
