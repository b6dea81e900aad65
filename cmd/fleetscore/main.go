// Command fleetscore scores fleets: one pre-trained Python model per device and
// sensor, in batches, on a schedule. See the README.
package main

import (
	"os"

	"github.com/fleetscore/fleetscore/internal/cli"
	"github.com/fleetscore/fleetscore/internal/sandbox"
)

func main() {
	sandbox.Main() // if this process is the one that isolates a program
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
