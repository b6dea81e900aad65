package fleetscore

// Source names the way by which readings reach a hub, such as HTTP. Each source has
// its own watermark.
type Source string

// SourceHTTP names the readings that arrive over HTTP.
const SourceHTTP Source = "http"

// MaxSourceBytes is the longest name that a source can have.
const MaxSourceBytes = 64

// Valid reports whether the name is neither empty nor too long.
func (s Source) Valid() bool { return s != "" && len(s) <= MaxSourceBytes }

// At names the part of a source that came to one of several servers. Each of them is a
// source of its own, because a server only knows what came to itself. Without a name of a
// server it is the source itself.
func (s Source) At(server string) Source {
	if server == "" {
		return s
	}
	return s + "@" + Source(server)
}
