package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"strconv"
)

// hashing passes bytes on, and counts and hashes them.
type hashing struct {
	w io.Writer
	h hash.Hash
	n int64
}

func newHashing(w io.Writer) *hashing { return &hashing{w: w, h: sha256.New()} }

func (h *hashing) Write(p []byte) (int, error) {
	n, err := h.w.Write(p)
	h.h.Write(p[:n])
	h.n += int64(n)
	return n, err
}

func (h *hashing) info() fileInfo {
	return fileInfo{SizeBytes: h.n, SHA256: hex.EncodeToString(h.h.Sum(nil))}
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}
