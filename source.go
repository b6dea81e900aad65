package fleetscore

// Source names a way in which readings come to a hub: the HTTP door, later an
// MQTT listener or a Kafka topic. Each source has a watermark of its own.
type Source string

// SourceHTTP is the HTTP door.
const SourceHTTP Source = "http"

// MaxSourceBytes is the longest name that a source can have.
const MaxSourceBytes = 64

// Valid reports whether the name is neither empty nor too long.
func (s Source) Valid() bool { return s != "" && len(s) <= MaxSourceBytes }
