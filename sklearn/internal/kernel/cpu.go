package kernel

import "os"

// level is a set of kernels, each a superset of the ones before.
type level int

const (
	generic level = iota
	avx2
	avx512
)

var levelNames = [...]string{"generic", "avx2", "avx512"}

// use is the set in use; tests change it.
var use = choose(has(), os.Getenv("FLEETSCORE_CPU"))

// choose gives the set to use of a processor that has one, if less is wanted.
func choose(has level, want string) level {
	for l, name := range levelNames {
		if name == want {
			return min(has, level(l))
		}
	}
	return has
}

// Name is the set of kernels in use: generic, avx2 or avx512.
func Name() string { return levelNames[use] }
