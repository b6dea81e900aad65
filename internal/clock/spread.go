package clock

import (
	"hash/fnv"
	"strconv"
)

// Spread is a number of at least 0 and less than 1 that depends on name and n alone.
// Waits are multiplied by it, so that many who wait for the same event don't act at
// the same moment. A replay has the same waits.
func Spread(name string, n int) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name + "/" + strconv.Itoa(n))) // it never fails
	x := h.Sum64()
	x ^= x >> 33 // FNV hardly mixes the last bytes into the upper bits
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}
