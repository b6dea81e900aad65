package access

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Limits of guessing. A right token is accepted even after many wrong ones, so that
// nobody can lock others out; this is safe because a token holds 256 random bits. The
// limits bound the server's work: after maxGuesses an address gets short answers, and
// every further guess needs a new connection.
const (
	maxGuesses   = 20
	guessWindow  = time.Minute
	maxAddresses = 1024 // addresses with a counter of their own; all others share one counter
)

// guesses counts wrong secrets by address. The zero value is ready for use.
type guesses struct {
	mu     sync.Mutex // guards what follows
	from   map[netip.Prefix]*window
	others window
	told   time.Time
}

type window struct {
	begun time.Time
	n     int
}

func (w *window) add(now time.Time) int {
	if now.Sub(w.begun) >= guessWindow {
		*w = window{begun: now}
	}
	w.n++
	return w.n
}

// count counts a wrong secret; false means that there were too many.
func (g *guesses) count(from netip.Prefix, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.from == nil {
		g.from = map[netip.Prefix]*window{}
	}
	w := g.from[from]
	if w == nil && len(g.from) >= maxAddresses {
		for k, x := range g.from {
			if now.Sub(x.begun) >= guessWindow {
				delete(g.from, k)
			}
		}
	}
	switch {
	case w != nil:
	case len(g.from) >= maxAddresses:
		w = &g.others
	default:
		w = &window{}
		g.from[from] = w
	}
	return w.add(now) <= maxGuesses
}

// tell reports whether it is time to write to the log again: at most once a minute.
func (g *guesses) tell(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.told.IsZero() && now.Sub(g.told) < guessWindow {
		return false
	}
	g.told = now
	return true
}

// addressOf returns the origin of a request: an IPv4 address, or the IPv6 network of
// one customer.
func addressOf(r *http.Request) netip.Prefix {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if ip = ip.Unmap(); ip.Is6() {
		bits = 64
	}
	p, _ := ip.WithZone("").Prefix(bits) // the length is valid for this kind of address, so there is no error
	return p
}
