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

// Local is what a server leaves for the commands of the user who runs it: where its
// token and its certificate lie. The file holds no secret itself, and only that user
// can write where it lies, so that nobody else can send commands elsewhere.
type Local struct {
	URL        string `json:"url"`                   // where the server is reached from this machine
	TokenFile  string `json:"token_file"`            // of an administrator; empty where the server asks for no token
	CAFile     string `json:"ca_file,omitempty"`     // to trust it by
	ServerName string `json:"server_name,omitempty"` // in its certificate
	PID        int    `json:"pid"`
}

// localFolders are the folders where such files may lie, the one to write to first.
// One below a home folder comes before one that every user can reach.
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

// localName is the name of a server's file: its address, and this machine's name, as
// machines may share a home folder.
func localName(address string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	clean := strings.NewReplacer(":", "-", "[", "", "]", "", "/", "-", "%", "-")
	return clean.Replace(host + "_" + address + ".json")
}

// private refuses a folder that another user could have put there.
func private(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || ok && int(owner.Uid) != os.Getuid() || st.Mode().Perm()&0o077 != 0 {
		return fleetscore.Errorf(fleetscore.Conflict, "use folder", dir, "it isn't this user's alone").WithHint("remove it, or set XDG_STATE_HOME to a folder of your own")
	}
	return nil
}

// LeaveLocal writes the file for a server at address, host:port. It returns the
// file's name, for its removal when the server ends.
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

// RemoveLocal removes a file that this process left, unless another server has
// written it since.
func RemoveLocal(name string) {
	text, err := os.ReadFile(name)
	var l Local
	if err == nil && json.Unmarshal(text, &l) == nil && l.PID == os.Getpid() {
		_ = os.Remove(name) // what it says isn't true any more, and harms nobody
	}
}

// FindLocal finds what a server of this user left on this machine; address is the
// host and port that it is asked for.
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

// local is what this client's server left on this machine.
func (c *Client) local() (Local, bool) {
	_, address, _ := strings.Cut(c.base, "://")
	address, _, _ = strings.Cut(address, "/")
	return FindLocal(address)
}

// token is the token to show; empty where none is known.
func (c *Client) token() (string, error) {
	file := c.cfg.TokenFile
	if file == "" {
		l, ok := c.local()
		if ok && strings.HasPrefix(l.URL, "https://") && strings.HasPrefix(c.base, "http://") {
			return "", fleetscore.Errorf(fleetscore.Invalid, "reach server", c.base, "it speaks TLS").WithHint("use %s in --server", l.URL)
		}
		if !ok || l.TokenFile == "" {
			return "", nil
		}
		file = l.TokenFile
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && c.cfg.TokenFile == "" {
		return "", nil // the server ended
	}
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Invalid, "read token", file, "%w", err).WithHint("name the file that holds a token of the server with --token-file")
	}
	return strings.TrimSpace(string(b)), nil
}
