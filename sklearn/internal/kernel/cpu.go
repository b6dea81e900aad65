package kernel

import "os"

// level is a set of kernels. Each level includes the levels below it.
type level int

const (
	generic level = iota
	avx2
	avx512
)

var levelNames = [...]string{"generic", "avx2", "avx512"}

// use is the level in use. Tests change it.
var use = choose(has(), os.Getenv("FLEETSCORE_CPU"))

// choose returns the level to use: the processor's level, or a lower level that is
// wanted.
func choose(has level, want string) level {
	for l, name := range levelNames {
		if name == want {
			return min(has, level(l))
		}
	}
	return has
}

// Name returns the level in use: generic, avx2 or avx512.
func Name() string { return levelNames[use] }
