package access

import (
	"io"
	"net/http"
	"time"
)

// How slowly a body may arrive: it has bodyGrace, and as much longer as what it has
// brought would take at slowest bytes a second. Who announces a body and sends
// nothing loses the connection after bodyGrace.
const (
	bodyGrace = 30 * time.Second
	slowest   = 16 << 10
)

// paced is a body that must arrive at a bearable speed.
type paced struct {
	io.ReadCloser
	control *http.ResponseController
	begun   time.Time
	grace   time.Duration
	n       int64
}

// pace bounds size and slowness of a request's body.
func pace(w http.ResponseWriter, r *http.Request, limit int64, grace time.Duration) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	p := &paced{ReadCloser: http.MaxBytesReader(w, r.Body, limit), control: http.NewResponseController(w), begun: time.Now(), grace: grace}
	p.extend()
	r.Body = p
}

func (p *paced) extend() {
	// Writers of tests know no deadlines.
	_ = p.control.SetReadDeadline(p.begun.Add(p.grace + time.Duration(float64(p.n)/slowest*float64(time.Second))))
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.n += int64(n)
	switch {
	case err == io.EOF:
		_ = p.control.SetReadDeadline(time.Time{}) // it would end a handler that waits for something
	case err == nil:
		p.extend()
	}
	return n, err
}
