package server

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/backup"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
)

// LedgerVariable holds the address of a PostgreSQL ledger, as an alternative to a file.
const LedgerVariable = "FLEETSCORE_LEDGER_URL"

// ReadLedgerURL reads the address of a PostgreSQL ledger, a secret, from a file, or if
// none is named, from the variable; empty if none was given.
func ReadLedgerURL(file string) (string, error) {
	address := os.Getenv(LedgerVariable)
	if file == "" {
		return address, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Invalid, "open ledger", file, "%w", err).
			WithHint("--ledger-url-file names a file with the address of the database, postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	if address = strings.TrimSpace(string(text)); address == "" {
		return "", fleetscore.Errorf(fleetscore.Invalid, "open ledger", file, "the file is empty").
			WithHint("write the address of the database into it: postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	return address, nil
}

// openLedger opens the ledger, in a database if its address was given, and waits until
// this server leads. It does nothing if the ledger is open.
func (s *Server) openLedger(ctx context.Context) error {
	const op = "open ledger"
	if s.Ledger != nil {
		return nil
	}
	if err := backup.Unfinished(s.cfg.Dir); err != nil {
		return err
	}
	if err := s.makePrivate(); err != nil {
		return err
	}
	file, marker := filepath.Join(s.cfg.Dir, "ledger.db"), filepath.Join(s.cfg.Dir, LedgerMarker)
	address, err := ReadLedgerURL(s.cfg.LedgerFile)
	if err != nil {
		return err
	}
	if address == "" {
		if s.cfg.Shared {
			return fleetscore.Errorf(fleetscore.Invalid, op, "--shared", "servers can only share a ledger that lies in a PostgreSQL database").
				WithHint("name the file with its address: --ledger-url-file FILE")
		}
		if err := InDatabase(op, s.cfg.Dir); err != nil {
			return err
		}
		l, err := ledger.Open(ctx, file)
		if err == nil {
			s.Ledger = l
		}
		return err
	}
	if _, err := os.Stat(file); err == nil {
		return fleetscore.Errorf(fleetscore.Conflict, op, s.cfg.Dir, "the folder has a ledger of its own, ledger.db").
			WithHint("start without the database's address, or with another --dir; to move the ledger: fleetscore backup, then fleetscore restore with the database's address")
	}
	lock, err := ledger.Lock(file)
	if err != nil {
		return err
	}
	s.folder = lock
	var p *ledger.Postgres
	if err := s.awaited(ctx, func() (err error) {
		p, err = ledger.OpenPostgres(ctx, ledger.PostgresConfig{URL: address})
		return err
	}); err != nil {
		return err
	}
	s.Ledger, s.postgres = p, p
	if err := s.lead(ctx); err != nil {
		return err
	}
	if err := durable.WriteFile(marker, []byte(p.String()+"\n"), 0o600); err != nil {
		return FolderError(marker, err)
	}
	return nil
}

// LedgerMarker is a file that says that the folder's ledger is in a database.
const LedgerMarker = "ledger.postgres"

// InDatabase refuses a folder whose ledger is in a database, where the address is missing.
func InDatabase(op, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, LedgerMarker)); err != nil {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Conflict, op, dir, "the folder belongs to a ledger in a PostgreSQL database").
		WithHint("give the database's address with --ledger-url-file or %s, or use another --dir", LedgerVariable)
}

// lead takes the ledger into use: alone, or as one of the servers that share it.
func (s *Server) lead(ctx context.Context) error {
	if !s.cfg.Shared {
		return s.postgres.Lead(ctx, ledger.Patience)
	}
	cfg, ready, err := s.applied(ctx)
	switch {
	case err != nil:
		return err
	case ready:
		err = s.checkShared(cfg)
	case s.cfg.Store == "" || store.IsLocal(s.cfg.Store):
		err = errLocalStore()
	}
	if err != nil {
		return err
	}
	return s.join(ctx)
}

// checkShared refuses to share the work where a part of the data lies with one server
// alone.
func (s *Server) checkShared(cfg fleetscore.Config) error {
	const op = "share the work"
	if !s.cfg.Shared {
		return nil
	}
	switch at := cmp.Or(s.cfg.Store, cfg.Store); {
	case at == "" || store.IsLocal(at):
		return errLocalStore()
	case cfg.Hub.NATS == nil:
		return fleetscore.Errorf(fleetscore.Invalid, op, "hub", "it lies in a folder of this server's machine, and all servers need the same hub").
			WithHint("name NATS servers that every server reaches: hub.nats.url (docs/nats.md); or start one server alone, without --shared")
	}
	return nil
}

func errLocalStore() error {
	return fleetscore.Errorf(fleetscore.Invalid, "share the work", "store", "it is a folder of this server's machine, and all servers need the same store").
		WithHint("name a store that every server reaches: --store s3://…, azblob://… or gs://…; or start one server alone, without --shared")
}

// storeOf is a name of the store that is the same for all machines.
func (s *Server) storeOf(address string) string {
	if !store.IsLocal(address) {
		return s.storeName(address)
	}
	path := strings.TrimPrefix(address, "file://")
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	host, err := os.Hostname()
	if err != nil {
		return path
	}
	return host + ":" + path
}
