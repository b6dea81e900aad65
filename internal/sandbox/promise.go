package sandbox

import (
	"strings"
)

// Promise is something that an isolated program can't do.
type Promise string

// The promises.
const (
	Files     Promise = "files"     // read or write other files than its own and the system's libraries
	Secrets   Promise = "secrets"   // read the environment of the process that started it, or its private files
	Network   Promise = "network"   // reach an address, a port or a socket of the machine
	Processes Promise = "processes" // see, end or trace other processes
	Lifetime  Promise = "lifetime"  // go on after it was ended
	Disk      Promise = "disk"      // write more than it may
)

// Promises are all of them.
var Promises = []Promise{Files, Secrets, Network, Processes, Lifetime, Disk}

// Finding is whether a promise holds on this machine.
type Finding struct {
	Promise Promise
	Holds   bool
	Detail  string // what was tried, or what was possible
}

// Gaps are what isolation doesn't do on any machine, by name.
var Gaps = []struct{ Name, Detail string }{
	{"memory", "bounded for each process, not for all that a model starts: control groups aren't used"},
	{"neighbours", "models of one pipeline share processes, so that one can read and change what is scored after it"},
}

// Broken are the promises that don't hold, with what was possible, in one line; empty if
// all hold.
func Broken(found []Finding) string {
	var out []string
	for _, f := range found {
		if !f.Holds {
			out = append(out, string(f.Promise)+": "+f.Detail)
		}
	}
	return strings.Join(out, "; ")
}
