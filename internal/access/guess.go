package access

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Bounds of guessing. A right token is taken however many wrong ones came before
// it, so that nobody can lock others out; that is safe because a token holds 256
// random bits. What is bounded is what guessing costs the server: after maxGuesses
// an address gets short answers, and every further guess needs a new connection.
const (
	maxGuesses   = 20
	guessWindow  = time.Minute
	maxAddresses = 1024 // that are counted apart; all others share one counter
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

// count counts a wrong secret; false: there were too many.
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

// tell tells whether it is time to write to the log again: once a minute at most.
func (g *guesses) tell(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.told.IsZero() && now.Sub(g.told) < guessWindow {
		return false
	}
	g.told = now
	return true
}

// addressOf is where a request comes from: an address of IPv4, or the network that
// one customer of IPv6 has.
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
	p, _ := ip.WithZone("").Prefix(bits) // the length fits the kind of address
	return p
}
