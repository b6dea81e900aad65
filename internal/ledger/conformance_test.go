package ledger_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestSQLite(t *testing.T) {
	t.Parallel()
	ledgertest.Run(t, func(t *testing.T) ledger.Ledger {
		t.Helper()
		l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
		if err != nil {
			t.Fatal(err)
		}
		testkit.CloseLater(t, l)
		return l
	})
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	for _, major := range testkit.PostgresVersions {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			server := testkit.StartPostgres(t, major)
			ledgertest.Run(t, func(t *testing.T) ledger.Ledger {
				t.Helper()
				// Watchers look by themselves so seldom that no test meets it.
				l, err := ledger.OpenPostgres(t.Context(), ledger.PostgresConfig{URL: server.NewDatabase(t), PollEvery: time.Hour})
				if err != nil {
					t.Fatal(err)
				}
				testkit.CloseLater(t, l)
				return l
			})
		})
	}
}
