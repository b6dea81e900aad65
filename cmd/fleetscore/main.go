// Command fleetscore scores fleets: one pre-trained Python model per device and
// sensor, in batches, on a schedule. See the README.
package main

import (
	"os"

	"github.com/fleetscore/fleetscore/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
