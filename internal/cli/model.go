package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/store"
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

// packing is one run of "model pack".
type packing struct {
	models, template, out string
	key                   []string
	workers               int
}

func newModelPackCommand() *cobra.Command {
	var p packing
	cmd := &cobra.Command{
		Use:   "pack",
		Short: "Compile a folder of models into a pack, which opens in no time",
		Long: `Reads every model of a folder as data, on all cores, and writes it in native form
into the folder --out, in a few large files with an index: a million models open
in a fraction of a second. The pack serves as --models of the score command.

Run again after models changed, it reads only those that did, and writes only the
files they lie in. A pack that is being read stays as it is.

A model that can't be scored natively costs its own sensor alone: the pack keeps
it as it is, and why.

Exit codes: 0 all models can be scored, 3 some can't, 1 none can.`,
		Example: "  fleetscore model pack --models models --model 'model_{Device}_{Tag}' --key Device,Tag --out pack",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&p.models, "models", "", "folder with the models")
	f.StringVar(&p.template, "model", "", "template of a model's name, e.g. 'model_{Device}_{Tag}'")
	f.StringSliceVar(&p.key, "key", nil, "key columns, e.g. Device,Tag")
	f.StringVar(&p.out, "out", "", "folder for the pack; made if absent")
	f.IntVar(&p.workers, "workers", 0, "packs files at once; 0 means one per core")
	for _, name := range []string{"models", "model", "key", "out"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	addOutputFlag(cmd)
	return cmd
}

// packed is the result of "model pack" as -o json shows it.
type packed struct {
	Pack       string                  `json:"pack"`
	Generation fleetscore.GenerationID `json:"generation"`
	Members    int64                   `json:"members"`
	Native     int64                   `json:"native"` // of them, models that are scored natively
	Added      int64                   `json:"added"`
	Changed    int64                   `json:"changed"`
	Removed    int64                   `json:"removed"`
	Read       int64                   `json:"files_read"`
	Segments   int                     `json:"segments_written"`
	SizeBytes  int64                   `json:"size_bytes"`
	Ignored    []string                `json:"ignored"` // files that fit no sensor's name; the first 100
	Seconds    float64                 `json:"seconds"`
}

func (p *packing) run(cmd *cobra.Command) error {
	began := time.Now()
	c, pack, err := p.pack(cmd.Context(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer pack.Close()
	g := c.Generation
	r := packed{Pack: p.out, Generation: g.ID, Members: g.Members, Added: c.Added, Changed: c.Changed, Removed: c.Removed,
		Read: c.Read, Segments: c.Segments, Ignored: g.Ignored}
	for _, e := range pack.All() {
		if e.Flags&fleet.Native != 0 {
			r.Native++
		}
	}
	for _, s := range g.Segments {
		r.SizeBytes += s.SizeBytes
	}
	r.Seconds = time.Since(began).Seconds()
	l := listing{columns: []string{"pack", "generation", "sensors", "native", "added", "changed", "removed", "files read", "size", "took"}, single: true}
	l.add(r, r.Pack, string(r.Generation), thousands(r.Members), thousands(r.Native), thousands(r.Added), thousands(r.Changed), thousands(r.Removed),
		thousands(r.Read), fmt.Sprintf("%.1f MB", float64(r.SizeBytes)/1e6), time.Since(began).Round(time.Millisecond).String())
	if err := l.print(cmd); err != nil {
		return err
	}
	switch {
	case r.Native == r.Members:
		return nil
	case r.Native == 0:
		return exitError(exitFailed)
	}
	return exitError(exitPartly)
}

func (p *packing) pack(ctx context.Context, _ io.Writer) (*fleet.Change, *fleet.Pack, error) {
	t, err := fleet.ParseTemplate(p.template, p.key)
	if err != nil {
		return nil, nil, err
	}
	src, err := store.OpenFolder(p.models)
	if err != nil {
		if e, ok := errors.AsType[*fleetscore.Error](err); ok {
			return nil, nil, e.WithHint("give --models the folder that holds the models")
		}
		return nil, nil, err
	}
	dst, err := store.OpenDir(p.out)
	if err != nil {
		return nil, nil, err
	}
	spec := fleet.Spec{Fleet: "pack", KeyNames: p.key, Model: t}
	c, err := fleet.Sync(ctx, src, dst, spec, fleet.Options{Workers: min(p.workers, 4*runtime.GOMAXPROCS(0))})
	if err != nil {
		return nil, nil, err
	}
	opened, err := fleet.Open(ctx, dst, spec)
	if err != nil {
		return nil, nil, err
	}
	pack, ok := opened.(*fleet.Pack)
	if !ok {
		return nil, nil, fleetscore.Errorf(fleetscore.Internal, "open pack", p.out, "it is gone")
	}
	return c, pack, nil
}
