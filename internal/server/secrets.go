package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/config"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/store"
)

// secret is the name of a file that only the user who runs the server can read.
func (s *Server) secret(name string) string { return filepath.Join(s.cfg.Dir, "secrets", name) }

// adminFile holds the token of the user who runs the server. Each start makes a new
// token, so that a program that listens at this address after the server ended learns
// no valid token.
func (s *Server) adminFile() string { return s.secret("admin-token") }

// caFile is the file of certificates by which programs of this machine trust the
// server; empty without TLS.
func (s *Server) caFile() string {
	if s.cert == nil {
		return ""
	}
	return s.cert.CAFile
}

// serverName is the name in the certificate by which programs of this machine know
// the server, if it isn't the one in its URL.
func (s *Server) serverName() string {
	u, err := url.Parse(s.URL)
	if s.cert == nil || err != nil {
		return ""
	}
	return s.cert.NameFor(u.Hostname())
}

// openAccess makes the secrets, reads the tokens, and writes the files by which this
// user's commands find the server.
func (s *Server) openAccess(ctx context.Context) error {
	s.nodes = s.secret("node-token")
	node, err := ensureSecret(s.nodes)
	if err != nil {
		return err
	}
	addr := s.listener.Addr().(*net.TCPAddr)
	cfg := access.Config{Local: access.Secret(), Node: node, Open: s.cfg.Open, Loopback: s.loopback, Secure: s.tls(), KeepSessions: s.tls() || s.postgres != nil, Cookie: "fleetscore-" + strconv.Itoa(addr.Port)}
	if s.cfg.Shared {
		cfg.Cookie = "fleetscore" // of all servers, which may share an address
	}
	if err := durable.WriteFile(s.adminFile(), []byte(cfg.Local+"\n"), 0o600); err != nil {
		return FolderError(s.adminFile(), err)
	}
	cfg.SignInSecret = s.signInSecret()
	if s.cfg.ClientCA != "" {
		if s.authorities, err = access.OpenAuthorities(s.cfg.ClientCA, s.log); err != nil {
			return err
		}
		cfg.Authorities, cfg.NeedCert = s.authorities, s.cfg.ClientCertRequired
	}
	if s.control, err = access.Open(ctx, cfg, access.Deps{Ledger: s.Ledger, Log: s.log, Nodes: s.otherNodes(),
		MayRead: func(key string) error { return s.mayRead(config.File{At: "hub.event_hubs", Path: key}) }}); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(s.cfg.Listen) // bind checked it
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	switch {
	case s.cfg.TLSSelfSigned:
		s.cert, err = access.SelfSigned(filepath.Join(s.cfg.Dir, "secrets"), host, s.log)
	case s.cfg.TLSCert != "":
		s.cert, err = access.OpenCertificate(s.cfg.TLSCert, s.cfg.TLSKey, s.log)
	}
	if err != nil {
		return err
	}
	where := *addr
	if where.IP.IsUnspecified() {
		where.IP = net.IPv4(127, 0, 0, 1)
	}
	local := client.Local{URL: s.URL, TokenFile: s.adminFile(), CAFile: s.caFile(), ServerName: s.serverName(), PID: os.Getpid()}
	if s.left, err = client.LeaveLocal(where.String(), local); err != nil {
		s.log.Warn("commands of this user can't find the server by themselves; they need --token-file", "file", s.adminFile(), "error", err)
	}
	return nil
}

// SignInVariable holds this server's secret at the OpenID provider, as an alternative to
// a file.
const SignInVariable = "FLEETSCORE_SIGN_IN_SECRET"

// signInSecret reads this server's secret at the OpenID provider; nil if there is none.
func (s *Server) signInSecret() func() (string, error) {
	if file := s.cfg.SignInSecretFile; file != "" {
		return func() (string, error) {
			text, err := os.ReadFile(file)
			return strings.TrimSpace(string(text)), err
		}
	}
	if text := os.Getenv(SignInVariable); text != "" {
		return func() (string, error) { return text, nil }
	}
	return nil
}

// commandSecrets is the folder in secrets whose files are the secrets of commands, and
// CommandVariable is what the names of variables begin with that may hold them instead.
const (
	commandSecrets  = "commands"
	CommandVariable = "FLEETSCORE_SECRET_"
)

// commandSecret reads a secret that a command of a pipeline may be given.
func (s *Server) commandSecret(name string) (string, error) {
	const op = "read secret"
	variable := CommandVariable + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	file := s.secret(filepath.Join(commandSecrets, name))
	text, err := os.ReadFile(file)
	switch v, set := os.LookupEnv(variable); {
	case err == nil:
		return strings.TrimRight(string(text), "\r\n"), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fleetscore.Wrap(op, name, err)
	case set:
		return v, nil
	}
	return "", fleetscore.Errorf(fleetscore.Invalid, op, name, "the server has no such secret").WithHint("put it into the file %s, readable by this user only, or start the server with the variable %s", file, variable)
}

// checkSecrets refuses commands whose secrets the server doesn't have.
func (s *Server) checkSecrets(cfg fleetscore.Config) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Pipelines)) {
		c := cfg.Pipelines[name].Command
		if c == nil {
			continue
		}
		for _, secret := range slices.Sorted(maps.Values(c.Secrets)) {
			if _, err := s.commandSecret(secret); err != nil {
				problems = append(problems, fmt.Errorf("pipelines.%s: %w", name, err))
			}
		}
	}
	return errors.Join(problems...)
}

// hubSecrets is the folder in secrets whose files the settings of the hub may always name.
const hubSecrets = "hub"

// checkFiles refuses files with passwords, keys and certificates that lie where the operator
// didn't allow it: whoever may apply configurations could otherwise make the server read any
// file, and send it as a password to a broker of their own. It looks at the settings whose names begin with at.
func (s *Server) checkFiles(h fleetscore.HubConfig, at string) error {
	var problems []error
	for _, f := range config.Files(h) {
		if strings.HasPrefix(f.At, at) {
			problems = append(problems, s.mayRead(f))
		}
	}
	return errors.Join(problems...)
}

// mayRead refuses a file that lies where the operator didn't allow it.
func (s *Server) mayRead(f config.File) error {
	if slices.Contains(strings.Split(f.Path, string(filepath.Separator)), "..") { // behind a link, it leads elsewhere than the name says
		return fleetscore.Errorf(fleetscore.Invalid, "read file", f.At, "%s contains ..", f.Path).WithHint("write the path without it")
	}
	in, _, err := s.secretRoots.OpenPlace(f.Path)
	if err == nil {
		err = in.Close()
	}
	if fleetscore.Invalid.Is(err) { // whether it is there is told when it is read
		return fleetscore.Errorf(fleetscore.Invalid, "read file", f.At, "%s isn't in one of the folders that such files may be read from (%s)", f.Path, s.secretRoots).
			WithHint("put it into the first of them, or start the server with --secret-root and a folder that contains it")
	}
	return nil
}

// tellFiles says which files of the settings in force may not be read: they were applied when the server had other flags.
// What needs them doesn't run.
func (s *Server) tellFiles(h fleetscore.HubConfig) {
	why := ""
	if err := s.checkFiles(h, "hub."); err != nil {
		why = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	if s.health.Report("files of the hub", why); why != "" && why != s.toldFiles {
		s.log.Error("files that the configuration in force names may not be read, so what needs them doesn't run", "error", why)
	}
	s.toldFiles = why
}

// findSecretRoots determines the folders of checkFiles.
func (s *Server) findSecretRoots() (err error) {
	s.secretRoots, err = store.FindRoots(append([]string{s.secret(hubSecrets)}, s.cfg.SecretRoots...))
	return err
}

// ours are the folders in --dir that the server always fills.
var ours = []string{"secrets", "hub", "spool"}

// makePrivate makes the server's folder readable only by the user who runs the server.
// The rights of a folder that contains other files too, or belongs to another user,
// aren't changed; the files that the server puts there are private in any case.
func (s *Server) makePrivate() error {
	dir := s.cfg.Dir
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return FolderError(dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return FolderError(dir, err)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return FolderError(dir, err)
	}
	_, notYet := os.Stat(filepath.Join(dir, "ledger.db"))
	if shared := st.Mode()&(os.ModeSticky|os.ModeSetgid) != 0; !shared && st.Mode().Perm()&0o077 != 0 && (len(entries) == 0 || notYet == nil) {
		if err := os.Chmod(dir, 0o700); err != nil {
			s.log.Warn("other users can look into the server's folder", "dir", dir, "error", err)
		}
	}
	for _, name := range ours {
		sub := filepath.Join(dir, name)
		if err := durable.MkdirAll(sub, 0o700); err != nil {
			return FolderError(sub, err)
		}
		if err := os.Chmod(sub, 0o700); err != nil {
			return FolderError(sub, err)
		}
	}
	return nil
}

// ensureSecret reads the secret in file, or makes one that only the owner reads.
func ensureSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err == nil && len(b) >= 32 && bytes.IndexByte(b, 0) < 0 { // a power cut can leave zero bytes
		return string(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", FolderError(file, err)
	}
	secret := access.Secret()
	if err := durable.WriteFile(file, []byte(secret), 0o600); err != nil {
		return "", FolderError(file, err)
	}
	return secret, nil
}
