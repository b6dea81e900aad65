package testkit

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// NodeVariable is the variable that makes the program of a test a node that does nothing
// and registers in no ledger, if its TestMain calls BeNode. Its value is one of the
// behaviours of package pooltest.
const NodeVariable = "FLEETSCORE_TEST_POOL_NODE"

// BeNode runs the node that NodeVariable names and ends the process with it. Without the
// variable, or with a value that it doesn't know, it returns.
func BeNode() {
	switch os.Getenv(NodeVariable) {
	case "crashing":
		hello()
		fmt.Fprintln(os.Stderr, "no luck")
		os.Exit(7)
	case "obedient":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		hello()
		<-stop
		fmt.Println("bye")
		os.Exit(0)
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		hello()
		for { // an empty select may be taken for a deadlock, which ends the process
			time.Sleep(time.Hour)
		}
	}
}

// hello is the first line of a node.
func hello() {
	id := os.Args[slices.Index(os.Args, "--id")+1]
	fmt.Printf("node %s is here as %s\n", id, os.Getenv("FLEETSCORE_KIND"))
}
