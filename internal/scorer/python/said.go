package python

import (
	"bytes"
	"cmp"
	"strings"
	"sync"

	"github.com/fleetscore/fleetscore/internal/obs"
)

// The streams that a process prints to.
const (
	stdout = "stdout"
	stderr = "stderr"
)

// printed is what a sensor's model, or a script, has printed through Python.
type printed struct {
	Key    int    `json:"key"` // the sensor's number in the request; -1 for none
	Stream string `json:"stream"`
	Text   string `json:"text"`
}

// Bounds of what is kept of what a process prints.
const (
	maxSaid  = 300 << 10 // bytes of each sensor of a request; the worker cuts off earlier
	maxLine  = 8 << 10   // bytes of a line that isn't printed through Python
	maxEarly = 100       // pieces that are kept until a request comes
)

// said gives what a process prints to the log of the request that it works on. What it prints
// before its first request, as init() may, goes to the log of that request. Python's own
// streams are sent as answers; what libraries in other languages and programs that a model
// starts write to the descriptors 1 and 2 is read from there.
type said struct {
	stdout, stderr raw

	mu    sync.Mutex // guards what follows
	to    *part      // the request; nil if there is none
	left  int        // bytes that may still be logged for this request
	early []printed
}

// begin gives what is printed from now on to a request.
func (s *said) begin(b part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to, s.left = &b, maxSaid*(1+len(b.sensors))
	for _, p := range s.early {
		s.log(p)
	}
	s.early = nil
}

// end tells that the request has been answered.
func (s *said) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = nil
}

func (s *said) add(p printed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.to != nil:
		s.log(p)
	case len(s.early) < maxEarly:
		p.Key = -1
		s.early = append(s.early, p)
	}
}

// log writes a piece to the log. The lock is held.
func (s *said) log(p printed) {
	p.Text = strings.TrimRight(p.Text, " \t\r\n")
	before := s.left
	s.left -= len(p.Text)
	switch {
	case p.Text == "" || before <= 0:
		return
	case s.left <= 0:
		s.to.Log("what else the process prints isn't logged, because it is too much")
		return
	}
	subject := "Python"
	if p.Key >= 0 && p.Key < len(s.to.sensors) {
		subject = s.to.Sensors[s.to.sensors[p.Key]].Key.String()
	}
	if p.Stream == stdout {
		s.to.Print("%s: %s", subject, p.Text)
		return
	}
	s.to.Log("%s printed: %s", subject, p.Text)
}

// taken gives what was printed before the first request away.
func (s *said) taken() []printed {
	s.mu.Lock()
	defer s.mu.Unlock()
	early := s.early
	s.early = nil
	return early
}

// before is what was printed before the first request.
func (s *said) before() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var text strings.Builder
	for _, p := range s.early {
		text.WriteString(strings.TrimRight(p.Text, "\n") + "\n")
	}
	return text.String()
}

// last is the last line that a process wrote to its descriptors.
func (s *said) last() string {
	return cmp.Or(s.stderr.tail.LastLine(), s.stdout.tail.LastLine())
}

// raw is what a process writes to one of its descriptors. It belongs to the goroutine that
// reads it.
type raw struct {
	to   *said
	name string
	tail obs.Tail
	rest []byte // of a line that hasn't ended
}

// Write implements io.Writer; it never fails.
func (r *raw) Write(p []byte) (int, error) {
	n := len(p)
	_, _ = r.tail.Write(p)
	for len(p) > 0 {
		line, more, ended := bytes.Cut(p, []byte("\n"))
		r.rest = append(r.rest, line[:min(len(line), max(0, maxLine-len(r.rest)))]...)
		if p = more; ended {
			r.to.add(printed{Key: -1, Stream: r.name, Text: string(r.rest)})
			r.rest = r.rest[:0]
		}
	}
	return n, nil
}
