package oneshot

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
)

// hashing passes bytes on to a writer, and counts and hashes them.
type hashing struct {
	w io.Writer
	h hash.Hash
	n int64
}

func newHashing(w io.Writer) *hashing { return &hashing{w: w, h: sha256.New()} }

func (h *hashing) Write(p []byte) (int, error) {
	// Hashing and writing run at the same time, because doing one after the other would
	// slow large files down. After an error the digest isn't valid.
	hashed := make(chan struct{})
	go func() {
		defer close(hashed)
		h.h.Write(p)
	}()
	n, err := h.w.Write(p)
	<-hashed
	h.n += int64(n)
	return n, err
}

func (h *hashing) info() FileInfo {
	return FileInfo{SizeBytes: h.n, SHA256: hex.EncodeToString(h.h.Sum(nil))}
}
