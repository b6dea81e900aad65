package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/sklearn"
)

func newModelCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "model", Short: "Look at models and pack them"}
	cmd.AddCommand(newModelInspectCommand(), newModelPackCommand())
	return cmd
}

// inspected is one model as "model inspect -o json" shows it.
type inspected struct {
	File      string            `json:"file"`
	SizeBytes int64             `json:"size_bytes"`
	Digest    fleetscore.Digest `json:"digest"`
	Model     *sklearn.Info     `json:"model,omitempty"`
	Error     string            `json:"error,omitempty"` // why it can't be scored
}

func newModelInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect FILE...",
		Short: "Show what is in a model's file and whether it can be scored, without running it",
		Long: `Reads scikit-learn models as data and shows their estimators, the releases that
wrote them, and what is wrong with them. Nothing in a file is executed: a class
that isn't known to be harmless is refused by name.

Exit codes: 0 all can be scored, 3 some can't, 1 none can.`,
		Example: "  fleetscore model inspect models/model_1_1",
		Args:    cobra.MinimumNArgs(1),
		RunE:    inspectModels,
	}
	addOutputFlag(cmd)
	return cmd
}

func inspectModels(cmd *cobra.Command, files []string) error {
	l := listing{columns: []string{"file", "estimators", "features", "support vectors", "scikit-learn", "health"}, single: true}
	bad := 0
	for _, file := range files {
		m, err := inspect(file)
		if err != nil {
			bad++
			m.Error = err.Error()
			l.add(m, file, "-", "-", "-", "-", m.Error)
			continue
		}
		i := m.Model
		health := "good"
		if len(i.Health) > 0 {
			var all []string
			for _, f := range i.Health {
				all = append(all, f.Message)
			}
			health = strings.Join(all, "; ")
		}
		l.add(m, file, i.Chain(), fmt.Sprint(i.Features), fmt.Sprint(i.SupportVectors), orDash(strings.Join(i.Versions, ", ")), health)
	}
	if err := l.print(cmd); err != nil {
		return err
	}
	switch bad {
	case 0:
		return nil
	case len(files):
		return exitError(exitFailed)
	}
	return exitError(exitPartly)
}

func inspect(file string) (inspected, error) {
	out := inspected{File: file}
	st, err := os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return out, fleetscore.Errorf(fleetscore.NotFound, "read model", file, "there is no such file")
	case err == nil && st.IsDir():
		return out, fleetscore.Errorf(fleetscore.Invalid, "read model", file, "it is a folder").WithHint("name the files in it: %s/*", strings.TrimSuffix(file, "/"))
	case err == nil && st.Size() > fleet.MaxModelBytes:
		return out, fleetscore.Errorf(fleetscore.Invalid, "read model", file, "it has %d bytes, more than the %d allowed", st.Size(), int64(fleet.MaxModelBytes))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return out, fleetscore.Errorf(fleetscore.Unavailable, "read model", file, "%w", pathCause(err))
	}
	out.SizeBytes, out.Digest = int64(len(data)), fleetscore.DigestOf(data)
	m, err := sklearn.Load(data)
	if err != nil {
		return out, err
	}
	info := m.Info()
	out.Model = &info
	return out, nil
}
