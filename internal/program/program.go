// Package program runs programs of the user's that a configuration names: the commands
// of pools, and the commands that prepare nodes. Because a configuration could otherwise
// run any program, only those run that lie in allowed folders.
//
// It keeps no state and starts no goroutine that outlives a call.
package program

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Find is the command with its program's path: a name without a slash is looked for in
// the folders. If it is in none of them, the command is returned as it is, and Check
// refuses it.
func Find(command, folders []string) []string {
	if len(command) == 0 || strings.ContainsRune(command[0], filepath.Separator) {
		return command
	}
	for _, f := range folders {
		file := filepath.Join(f, command[0])
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() {
			return append([]string{file}, command[1:]...)
		}
	}
	return command
}

// Check refuses a command whose program isn't an executable file in one of the folders,
// links followed.
func Check(command, folders []string) error {
	const op = "check command"
	if len(command) == 0 {
		return fleetscore.Errorf(fleetscore.Invalid, op, "", "the command is empty")
	}
	hint := "start the process that runs it with --commands FOLDER, and put the program there"
	file, err := filepath.EvalSymlinks(command[0])
	if err != nil {
		return fleetscore.Errorf(fleetscore.Invalid, op, command[0], "the program can't be found: %w", err).WithHint("%s", hint)
	}
	st, err := os.Stat(file)
	if err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return fleetscore.Errorf(fleetscore.Invalid, op, command[0], "it isn't an executable file").WithHint("make it executable: chmod +x %s", command[0])
	}
	for _, f := range folders {
		folder, err := filepath.EvalSymlinks(f)
		if err != nil {
			continue
		}
		if rel, err := filepath.Rel(folder, file); err == nil && filepath.IsLocal(rel) {
			return nil
		}
	}
	return fleetscore.Errorf(fleetscore.Invalid, op, command[0], "the program doesn't lie in a folder whose programs may be run").WithHint("%s", hint)
}

// Run runs a program in its own folder until it ends, with nothing but env as its
// environment. When ctx ends, its children are killed too.
func Run(ctx context.Context, command, env []string, stdout, stderr io.Writer) error {
	err := runOnce(ctx, command, env, stdout, stderr)
	for try := 0; errors.Is(err, syscall.ETXTBSY) && try < 20; try++ { // somebody is writing the program
		time.Sleep(50 * time.Millisecond)
		err = runOnce(ctx, command, env, stdout, stderr)
	}
	return err
}

func runOnce(ctx context.Context, command, env []string, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env = filepath.Dir(command[0]), env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd.Run()
}

// LastLine is the last line of a text.
func LastLine(text []byte) string {
	text = bytes.TrimSpace(text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}

// maxTail is how much Tail keeps.
const maxTail = 1 << 20

// Tail is a writer that keeps the end of what is written to it. Its zero value is empty.
// It is safe for concurrent use.
type Tail struct {
	mu   sync.Mutex // guards what follows
	text []byte
	cut  bool
}

// Write implements io.Writer; it never fails.
func (o *Tail) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	if len(o.text) > 2*maxTail {
		o.text, o.cut = append(o.text[:0], o.text[len(o.text)-maxTail:]...), true
	}
	return len(b), nil
}

// Bytes is a copy of what was kept. Its first line says so if the beginning was left out.
func (o *Tail) Bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cut {
		return append([]byte("(the beginning was left out)\n"), o.text...)
	}
	return bytes.Clone(o.text)
}
