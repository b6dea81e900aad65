package pool_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/pool/pooltest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// local is a provider whose nodes are the test's own program.
func local(t *testing.T, executable string) pool.Provider {
	t.Helper()
	token := filepath.Join(t.TempDir(), "node-token")
	if err := os.WriteFile(token, []byte("a secret of the nodes"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := pool.NewLocal(pool.LocalConfig{ServerURL: "http://127.0.0.1:1", Executable: executable, TokenFile: token})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestProviders runs the conformance suite over child processes, and over the
// goroutines that stand for nodes in tests.
func TestProviders(t *testing.T) {
	t.Run("local", func(t *testing.T) {
		pooltest.Run(t, func(t *testing.T, b pooltest.Behaviour) pool.Provider {
			t.Setenv(testkit.NodeVariable, string(b))
			if b == pooltest.Missing {
				return local(t, filepath.Join(t.TempDir(), "nothing"))
			}
			return local(t, os.Args[0])
		})
	})
	t.Run("goroutines", func(t *testing.T) {
		pooltest.Run(t, func(_ *testing.T, b pooltest.Behaviour) pool.Provider {
			if b == pooltest.Missing {
				return pooltest.NewGoroutines(nil)
			}
			return pooltest.NewGoroutines(func(life, stop context.Context, n fleetscore.Node, out io.Writer) error {
				fmt.Fprintf(out, "node %s is here as %s\n", n.ID, n.Kind)
				switch b {
				case pooltest.Crashing:
					fmt.Fprintln(out, "no luck")
					return errors.New("exit 7")
				case pooltest.Deaf:
					<-life.Done()
				default:
					<-stop.Done()
					fmt.Fprintln(out, "bye")
				}
				return nil
			})
		})
	})
}
