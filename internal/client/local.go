package client

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
)

// Local is the content of a file that a server writes for the commands of the user
// who runs it: the places of its token and of its certificate. The file itself holds
// no secret. Only that user can write to its folder, so that nobody else can direct
// commands to another server.
type Local struct {
	URL        string `json:"url"`                   // the server's URL for this machine
	TokenFile  string `json:"token_file"`            // of an administrator; empty if the server needs no token
	CAFile     string `json:"ca_file,omitempty"`     // the certificate to trust
	ServerName string `json:"server_name,omitempty"` // the name in its certificate
	PID        int    `json:"pid"`
}

// localFolders are the folders of such files, in the order in which they are tried. A
// folder below the home folder comes before a folder that every user can reach.
func localFolders() []string {
	var out []string
	if s := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(s) {
		out = append(out, filepath.Join(s, "fleetscore", "servers"))
	}
	if h, err := os.UserHomeDir(); err == nil && filepath.IsAbs(h) {
		out = append(out, filepath.Join(h, ".local", "state", "fleetscore", "servers"))
	}
	if r := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(r) {
		out = append(out, filepath.Join(r, "fleetscore"))
	}
	return append(out, filepath.Join(os.TempDir(), "fleetscore-"+strconv.Itoa(os.Getuid())))
}

// localName is the name of a server's file. It has the server's address and this
// machine's name, because machines may share a home folder.
func localName(address string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	clean := strings.NewReplacer(":", "-", "[", "", "]", "", "/", "-", "%", "-")
	return clean.Replace(host + "_" + address + ".json")
}

// private refuses a folder that another user could have made.
func private(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || ok && int(owner.Uid) != os.Getuid() || st.Mode().Perm()&0o077 != 0 {
		return fleetscore.Errorf(fleetscore.Conflict, "use folder", dir, "other users can write to it, or another user owns it").WithHint("remove the folder, or set XDG_STATE_HOME to a folder of your own")
	}
	return nil
}

// LeaveLocal writes the file for a server at address, host:port. It returns the
// file's name, so that the caller can remove the file when the server ends.
func LeaveLocal(address string, l Local) (string, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return "", fleetscore.Wrap("leave file for commands", address, err)
	}
	var problems []error
	for _, dir := range localFolders() {
		err := durable.MkdirAll(dir, 0o700)
		if err == nil {
			err = private(dir)
		}
		name := filepath.Join(dir, localName(address))
		if err == nil {
			err = durable.WriteFile(name, append(text, '\n'), 0o600)
		}
		if err == nil {
			return name, nil
		}
		problems = append(problems, err)
	}
	return "", fleetscore.Errorf(fleetscore.Unavailable, "leave file for commands", address, "%w", errors.Join(problems...)).
		WithHint("set XDG_STATE_HOME to a folder that can be written")
}

// RemoveLocal removes a file that this process wrote, unless another server has
// written it meanwhile.
func RemoveLocal(name string) {
	text, err := os.ReadFile(name)
	var l Local
	if err == nil && json.Unmarshal(text, &l) == nil && l.PID == os.Getpid() {
		_ = os.Remove(name) // if the file stays, its content is out of date but does no harm
	}
}

// FindLocal reads the file of this user's server on this machine; address is the
// server's host and port.
func FindLocal(address string) (Local, bool) {
	addresses := []string{address}
	if host, port, err := net.SplitHostPort(address); err == nil && strings.EqualFold(host, "localhost") {
		addresses = []string{net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}
	}
	for _, dir := range localFolders() {
		if private(dir) != nil {
			continue
		}
		for _, a := range addresses {
			text, err := os.ReadFile(filepath.Join(dir, localName(a)))
			var l Local
			if err == nil && json.Unmarshal(text, &l) == nil {
				return l, true
			}
		}
	}
	return Local{}, false
}

// local reads the file of this client's server on this machine.
func (s *server) local() (Local, bool) {
	_, address, _ := strings.Cut(s.base, "://")
	address, _, _ = strings.Cut(address, "/")
	return FindLocal(address)
}

// token is the token to send; empty if none is known.
func (s *server) token() (string, error) {
	file := s.cfg.TokenFile
	if file == "" {
		l, ok := s.local()
		if ok && strings.HasPrefix(l.URL, "https://") && strings.HasPrefix(s.base, "http://") {
			return "", fleetscore.Errorf(fleetscore.Invalid, "reach server", s.base, "the server speaks TLS").WithHint("use %s in --server", l.URL)
		}
		if !ok || l.TokenFile == "" || s.cfg.CertFile != "" { // who names a certificate means its role, not this user's
			return "", nil
		}
		file = l.TokenFile
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && s.cfg.TokenFile == "" {
		return "", nil // the server ended
	}
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Invalid, "read token", file, "%w", err).WithHint("with --token-file, name a file that holds a token of the server")
	}
	return strings.TrimSpace(string(b)), nil
}
