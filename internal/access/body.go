package access

import (
	"io"
	"net/http"
	"time"
)

// How slowly a body may arrive: it has bodyGrace, and in addition the time that its
// arrived bytes would take at slowest bytes a second. If a client announces a body
// and sends nothing, the connection ends after bodyGrace.
const (
	bodyGrace = 30 * time.Second
	slowest   = 16 << 10
)

// paced is a body that must arrive at a minimum speed.
type paced struct {
	io.ReadCloser
	control *http.ResponseController
	begun   time.Time
	grace   time.Duration
	n       int64
}

// pace limits the size and the time of arrival of a request's body.
func pace(w http.ResponseWriter, r *http.Request, limit int64, grace time.Duration) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	p := &paced{ReadCloser: http.MaxBytesReader(w, r.Body, limit), control: http.NewResponseController(w), begun: time.Now(), grace: grace}
	p.extend()
	r.Body = p
}

func (p *paced) extend() {
	// The writers that tests use don't support deadlines.
	_ = p.control.SetReadDeadline(p.begun.Add(p.grace + time.Duration(float64(p.n)/slowest*float64(time.Second))))
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.n += int64(n)
	switch {
	case err == io.EOF:
		_ = p.control.SetReadDeadline(time.Time{}) // the deadline would end a handler that waits for something
	case err == nil:
		p.extend()
	}
	return n, err
}
