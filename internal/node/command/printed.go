package command

import (
	"bytes"
	"strings"
	"sync"
)

// printed gives what a command prints to the log, line by line.
type printed struct {
	subject string
	hide    *strings.Replacer

	mu    sync.Mutex // guards what follows
	bytes int        // logged so far
}

// Bounds of what is logged.
const (
	maxPrinted = 1 << 20 // of one run
	maxLine    = 8 << 10
)

// stream is one of the two that a command prints to.
type stream struct {
	to   *printed
	log  func(format string, args ...any)
	form string // of a line, with the subject and the text
	rest []byte // of a line that hasn't ended
	last string // the last line that isn't blank
}

// Write implements io.Writer; it never fails.
func (s *stream) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, more, ended := bytes.Cut(p, []byte("\n"))
		s.rest = append(s.rest, line[:min(len(line), max(0, maxLine-len(s.rest)))]...)
		if p = more; ended {
			s.line()
		}
	}
	return n, nil
}

// close logs a last line that has no end.
func (s *stream) close() { s.line() }

func (s *stream) line() {
	text := strings.TrimRight(s.to.hide.Replace(string(s.rest)), " \t\r")
	if s.rest = s.rest[:0]; text == "" {
		return
	}
	s.last = strings.TrimSpace(text)
	s.to.mu.Lock()
	before := s.to.bytes
	s.to.bytes += len(text) + 1
	s.to.mu.Unlock()
	switch {
	case before+len(text) < maxPrinted:
		s.log(s.form, s.to.subject, text)
	case before < maxPrinted:
		s.log("%s: what else it prints isn't logged, because it is more than %d bytes", s.to.subject, maxPrinted)
	}
}

// hiding replaces secrets by stars. Very short ones would make everything unreadable.
func hiding(secrets map[string]string) *strings.Replacer {
	var pairs []string
	for _, v := range secrets {
		for line := range strings.Lines(v) {
			if line = strings.TrimSpace(line); len(line) >= 4 {
				pairs = append(pairs, line, "***")
			}
		}
	}
	return strings.NewReplacer(pairs...)
}
