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
