package cli

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/fleet/folders"
)

func newFleetCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "fleet", Short: "Fleets: their sensors, their models, and what is wrong with them"}
	cmd.AddCommand(newFleetListCommand(), newFleetShowCommand(), newFleetSyncCommand(), newFleetDiffCommand(), newFleetQuarantineCommand(), newFleetReleaseCommand())
	return cmd
}

// harmList lists what models did.
func harmList(harms []fleetscore.Harm) *listing {
	l := &listing{columns: []string{"fleet", "pipeline", "sensor", "model", "quarantined", "jobs in a row", "last", "reason"}}
	for _, h := range harms {
		l.add(h, h.Fleet, h.Pipeline, h.Key.String(), h.Model.Short(), h.Quarantined, len(h.Jobs), h.Last, h.Reason)
	}
	return l
}

func newFleetQuarantineCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "quarantine", Short: "Models that did harm to the processes that scored them"}
	cmd.AddCommand(remote(&cobra.Command{
		Use:   "ls [NAME]",
		Short: "List the models that are in quarantine, or on their way there",
		Long: `Lists the models that crashed their process, ate its memory or took longer than a
model may when a pipeline scored them last. After several jobs of the pipeline in a row
(limits.quarantine_after) a model gets into quarantine: in that pipeline its sensor ends as
quarantined, and the model isn't read. Another model of the sensor is scored.`,
		Example: "  fleetscore fleet quarantine ls sensors",
		Args:    cobra.MaximumNArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		q := url.Values{}
		if len(args) > 0 {
			q.Set("fleet", args[0])
		}
		var got api.List[fleetscore.Harm]
		if err := c.Get(ctx, "/quarantine", q, &got); err != nil {
			return nil, err
		}
		return harmList(got.Items), nil
	}))
	return cmd
}

func newFleetReleaseCommand() *cobra.Command {
	var keys []string
	var all bool
	cmd := remote(&cobra.Command{
		Use:     "release NAME",
		Short:   "Take models out of quarantine, so that the next job scores them",
		Example: "  fleetscore fleet release sensors --key 3/pressure",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		if all == (len(keys) > 0) {
			return nil, usagef("say which sensors: --key KEY or --all")
		}
		in := map[string]any{"all": all}
		if len(keys) > 0 {
			in["keys"] = keys
		}
		var got api.List[fleetscore.Harm]
		if err := c.Post(ctx, "/fleets/"+url.PathEscape(args[0])+"/release", in, &got); err != nil {
			return nil, err
		}
		return harmList(got.Items), nil
	})
	cmd.Flags().StringArrayVar(&keys, "key", nil, "this sensor, such as 3/pressure; may be repeated")
	cmd.Flags().BoolVar(&all, "all", false, "all sensors of the fleet")
	return cmd
}

func newFleetListCommand() *cobra.Command {
	return remote(&cobra.Command{Use: "list", Short: "List the fleets and their generations", Example: "  fleetscore fleet list", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var got api.List[api.Fleet]
			if err := c.Get(ctx, "/fleets", nil, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"fleet", "path", "generation", "sensors", "native", "created", "looked at", "problem"}}
			for _, f := range got.Items {
				l.add(f, f.Name, f.Path, string(f.Generation), f.Members, f.Native, f.Created, f.Synced, f.Problem)
			}
			return l, nil
		})
}

func newFleetShowCommand() *cobra.Command {
	var models bool
	var pipeline, runtime string
	cmd := oneFleet(&cobra.Command{
		Use:   "show NAME",
		Short: "Show a fleet's models, how they are scored, and what is wrong with them",
		Long: `Shows a fleet's current generation: its sensors, the kinds of models they have, the
runtimes that "runtime: auto" chooses for them and why, and what is wrong, grouped by cause
and the most harmful first. -o json has up to 20 sensors of each cause.

--models lists every sensor instead, with the runtime that scores its model, the reason, the
releases that its file names, and what to do if another runtime is wanted.`,
		Example: "  fleetscore fleet show sensors\n  fleetscore fleet show sensors --models --runtime python",
	}, http.MethodGet, "")
	whole := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !models && (pipeline != "" || runtime != "") {
			return usagef("--pipeline and --runtime choose among the models of --models")
		}
		if !models {
			return whole(cmd, args)
		}
		return listModels(cmd, args[0], url.Values{"pipeline": {pipeline}, "runtime": {runtime}})
	}
	cmd.Flags().BoolVar(&models, "models", false, "list every sensor with the runtime of its model")
	cmd.Flags().StringVar(&pipeline, "pipeline", "", "with --models: the runtimes that this pipeline uses, instead of those that auto chooses")
	cmd.Flags().StringVar(&runtime, "runtime", "", "with --models: only models with this runtime: native, python, onnx, command or none")
	return cmd
}

// listModels prints all models of a fleet with their runtimes.
func listModels(cmd *cobra.Command, name string, q url.Values) error {
	c, err := dial(cmd)
	if err != nil {
		return err
	}
	defer c.Close()
	for k, v := range q {
		if v[0] == "" {
			delete(q, k)
		}
	}
	l := listing{columns: []string{"sensor", "file", "runtime", "made with", "reason", "fix"}}
	for {
		var page api.List[api.Model]
		if err := c.Get(cmd.Context(), "/fleets/"+url.PathEscape(name)+"/models", q, &page); err != nil {
			return err
		}
		for _, m := range page.Items {
			l.add(m, m.Key, m.File, orDash(string(m.Runtime)), m.MadeWith, m.Reason, m.Fix)
		}
		if page.Next == "" {
			return l.print(cmd)
		}
		q.Set("after", page.Next)
	}
}

func newFleetSyncCommand() *cobra.Command {
	return oneFleet(&cobra.Command{
		Use:   "sync NAME",
		Short: "Look at a fleet's models now, and compile those that changed",
		Long: `Looks at a fleet's folder of models at once instead of at the next interval (the
fleet's sync), reads the models that changed, and shows the fleet. Jobs that run
keep the generation they were planned with.`,
		Example: "  fleetscore fleet sync sensors",
	}, http.MethodPost, "/sync")
}

// oneFleet makes a command that asks the server for a fleet and shows it.
func oneFleet(cmd *cobra.Command, method, verb string) *cobra.Command {
	cmd.Args = cobra.ExactArgs(1)
	addOutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		defer c.Close()
		var f api.Fleet
		if err := c.Send(cmd.Context(), method, "/fleets/"+url.PathEscape(args[0])+verb, nil, "", nil, &f); err != nil {
			return err
		}
		if how, _ := cmd.Flags().GetString("output"); how == "table" {
			return writeFleet(cmd.OutOrStdout(), &f)
		}
		l := listing{columns: []string{"fleet", "generation", "sensors", "native", "created"}, single: true}
		l.add(f, f.Name, string(f.Generation), f.Members, f.Native, f.Created)
		return l.print(cmd)
	}
	return cmd
}

func writeFleet(w io.Writer, f *api.Fleet) error {
	rows := [][2]string{{"fleet", f.Name}, {"path", f.Path}, {"model", f.Model}, {"sensors listed in", f.Sensors}, {"generation", string(f.Generation)},
		{"made", stampOf(f.Created)}, {"looked at", stampOf(f.Synced)}, {"problem", f.Problem}}
	if d := f.Since; d != nil && d.Generation != "" {
		rows = append(rows, [2]string{"since the one before", fmt.Sprintf("%s added, %s changed, %s removed", thousands(d.Added), thousands(d.Changed), thousands(d.Removed))})
	}
	if c := f.Change; c != nil {
		rows = append(rows, [2]string{"found now", fmt.Sprintf("%s added, %s changed, %s removed; %s read", thousands(c.Added), thousands(c.Changed), thousands(c.Removed), plural(int(c.FilesRead), "file"))})
	}
	rows = append(rows, [2]string{"sensors", thousands(f.Members)}, [2]string{"of them native", thousands(f.Native)})
	if n := len(f.Ignored); n > 0 {
		rows = append(rows, [2]string{"ignored files", shortList(f.Ignored)})
	}
	for _, p := range f.Pipelines {
		rows = append(rows, [2]string{"pipeline " + p.Pipeline, fmt.Sprintf("runtime %s: %s scored natively, %s otherwise, %s not at all", p.Runtime, thousands(p.Native), thousands(p.Other), thousands(p.None))})
	}
	if err := writePairs(w, rows); err != nil || f.Health == nil {
		return err
	}
	return writeHealth(w, f.Health)
}

// writePairs prints names with their values, without those that have none.
func writePairs(w io.Writer, rows [][2]string) error {
	for _, r := range rows {
		if r[1] != "" && r[1] != "-" {
			if _, err := fmt.Fprintf(w, "%-22s %s\n", r[0], r[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeHealth prints the kinds of a fleet's models and what is wrong with them.
func writeHealth(w io.Writer, h *fleet.Diagnosis) error {
	if len(h.Kinds) > 0 {
		var rows [][]string
		for _, k := range h.Kinds {
			rows = append(rows, []string{k.Estimators, orDash(k.Releases), fmt.Sprint(k.Features), thousands(k.Models), k.Example})
		}
		fmt.Fprintln(w)
		if err := writeTable(w, []string{"estimators", "scikit-learn", "features", "models", "for example"}, rows); err != nil {
			return err
		}
	}
	if h.Native < sensorsOf(h) {
		fmt.Fprintln(w, "\nruntimes that auto chooses")
		for _, c := range h.Runtimes {
			fmt.Fprintf(w, "  %s: %s%s: %s\n    %s\n", cmp.Or(string(c.Runtime), "none"), plural(int(c.Sensors), "sensor"), madeWith(c.MadeWith), c.Reason, exampleList(c.Members, c.Sensors))
			if c.Fix != "" {
				fmt.Fprintf(w, "    %s\n", c.Fix)
			}
		}
	}
	if len(h.Causes) == 0 {
		_, err := fmt.Fprintln(w, "\nnothing is known to be wrong")
		return err
	}
	for _, c := range h.Causes {
		if _, err := fmt.Fprintf(w, "\n%s: %s\n  %s\n  %s\n", c.Code, plural(int(c.Sensors), "sensor"), c.Message, exampleList(c.Members, c.Sensors)); err != nil {
			return err
		}
	}
	return nil
}

// sensorsOf is how many sensors the runtimes of a diagnosis stand for.
func sensorsOf(h *fleet.Diagnosis) (n int64) {
	for _, c := range h.Runtimes {
		n += c.Sensors
	}
	return n
}

func madeWith(releases string) string {
	if releases == "" {
		return ""
	}
	return " made with " + releases
}

// exampleList names the first of some sensors with their files.
func exampleList(members []fleet.Affected, sensors int64) string {
	var names []string
	for _, m := range members[:min(len(members), 8)] {
		if m.Name == "" || m.Name == m.Key {
			names = append(names, m.Key)
		} else {
			names = append(names, m.Key+" ("+m.Name+")")
		}
	}
	s := strings.Join(names, ", ")
	if more := sensors - int64(len(names)); more > 0 {
		s += " and " + thousands(more) + " more"
	}
	return s
}

// checked is the result of "model check" with -o json.
type checked struct {
	Models  string `json:"models"`
	Sensors int64  `json:"sensors"`
	fleet.Diagnosis
	Ignored []string `json:"ignored"` // files that fit no sensor's name
	Seconds float64  `json:"seconds"`
}

func newModelCheckCommand() *cobra.Command {
	var m members
	var has dataColumns
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Show what kinds of models a fleet has, which can be scored, and what is wrong",
		Long: `Reads every model of a folder as data, on all cores, and counts them by their
estimators and the release that wrote them. What is wrong is grouped by cause, the
most harmful first: models that can't be read or aren't supported and why, models
that flag every row or none whatever the data, files of another model's content,
models that a current scikit-learn can't load.

DIR may be a pack too. With --key and --model or --sensors, sensors that have no
model, or two, are named as well; without, every file is a model.

Exit codes: 0 nothing is wrong, 3 something is.`,
		Example: "  fleetscore model check models\n  fleetscore model check models --model 'model_{Device}_{Tag}' --key Device,Tag",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if has.by.Validate() != nil {
				return usagef("--features-by %s: name or position are possible", has.by)
			}
			if has.count > 0 && len(has.names) > 0 {
				return usagef("--feature and --features: name the columns or count them, not both")
			}
			spec, err := m.spec("check")
			if err != nil {
				return err
			}
			return checkModels(cmd, args[0], spec, has)
		},
	}
	m.flags(cmd)
	cmd.Flags().IntVar(&has.count, "features", 0, "how many feature columns the rows have; models that take another number are named")
	cmd.Flags().StringSliceVar(&has.names, "feature", nil, "feature columns of the rows; models that know other feature names, or take another number, are named")
	addFeaturesBy(cmd, &has.by)
	addOutputFlag(cmd)
	return cmd
}

// dataColumns says which columns the rows have, as given to "model check".
type dataColumns struct {
	count int
	names []string
	by    fleetscore.FeatureOrder
}

func (c *dataColumns) against(h fleet.Diagnosis) fleet.Diagnosis {
	switch {
	case len(c.names) > 0:
		return h.Against("the data", c.names, c.by)
	case c.count > 0: // only the number of features is given
		return h.Against("the data", make([]string, c.count), fleetscore.FeaturesByPosition)
	}
	return h
}

func checkModels(cmd *cobra.Command, dir string, spec fleet.Spec, has dataColumns) error {
	began := time.Now()
	src, err := openModels("DIR", dir)
	if err != nil {
		return err
	}
	r := checked{Models: dir, Ignored: []string{}}
	g, err := fleet.PackIn(cmd.Context(), src)
	switch {
	case err != nil:
		return err
	case g != nil:
		r.Sensors, r.Diagnosis, r.Ignored = g.Members, g.Health, g.Ignored
	default:
		folder, err := fleet.ScanSpec(cmd.Context(), src, spec)
		if err != nil {
			return err
		}
		r.Sensors, r.Ignored = int64(folder.Len()), append(r.Ignored, folder.Ignored...)
		report, end := showProgress(cmd.ErrOrStderr(), "check", "models")
		r.Diagnosis, err = folder.Examine(cmd.Context(), fleet.Options{Progress: report})
		end()
		if err != nil {
			return err
		}
	}
	if r.Sensors == 0 {
		return noModels(dir, r.Ignored)
	}
	r.Diagnosis = has.against(r.Diagnosis)
	r.Seconds = time.Since(began).Seconds()
	if how, _ := cmd.Flags().GetString("output"); how == "table" {
		w := cmd.OutOrStdout()
		fmt.Fprintf(w, "%s in %s, %s scored natively\n", plural(int(r.Sensors), "model"), dir, thousands(r.Native))
		if n := len(r.Ignored); n > 0 {
			fmt.Fprintf(w, "%s that %s no sensor's name: %s\n", plural(n, "file"), verb(n, "fit"), shortList(r.Ignored))
		}
		if err := writeHealth(w, &r.Diagnosis); err != nil {
			return err
		}
	} else {
		l := listing{columns: []string{"models", "sensors", "native", "causes"}, single: true}
		l.add(r, dir, r.Sensors, r.Native, len(r.Causes))
		if err := l.print(cmd); err != nil {
			return err
		}
	}
	if len(r.Causes) > 0 || r.Native < r.Sensors {
		return exitError(exitPartly)
	}
	return nil
}

func newModelPushCommand() *cobra.Command {
	p := &push{}
	cmd := remote(&cobra.Command{
		Use:   "push FLEET [KEY FILE]...",
		Short: "Put models into a server's fleet as a new version, after a check",
		Long: `Sends models to a server, which checks them, puts them into the fleet's folder in the
store, and makes a generation of the fleet that the next jobs use. KEY is the sensor, such
as 3/pressure; with --dir, all files of a folder are sent under their own names. A folder
of MLflow counts as a file. All
of them become one version, or none if one can't be scored or doesn't fit the pipelines
(--unchecked pushes them nevertheless). What was there before is kept: fleetscore model
rollback brings it back.`,
		Example: "  fleetscore model push sensors 1/pressure model.pkl -m 'trained with November'\n  fleetscore model push sensors --dir models",
		Args:    cobra.MinimumNArgs(1),
	}, p.run)
	cmd.Flags().StringVar(&p.dir, "dir", "", "send all files of this folder, by their names; names that begin with . or _ are left out")
	cmd.Flags().StringVarP(&p.message, "message", "m", "", "why, for people")
	cmd.Flags().BoolVar(&p.unchecked, "unchecked", false, "push models, too, that can't be scored natively or don't fit the pipelines")
	return cmd
}

type push struct {
	dir, message string
	unchecked    bool
}

// entry is a file to send and its name in the archive.
type entry struct{ name, file string }

func (p *push) run(ctx context.Context, c *client.Client, args []string) (*listing, error) {
	entries, err := p.entries(args[1:])
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pw.CloseWithError(pack(ctx, pw, entries))
	}()
	defer func() {
		pr.Close()
		<-done
	}()
	q := url.Values{"unchecked": {strconv.FormatBool(p.unchecked)}}
	if p.message != "" {
		q.Set("message", p.message)
	}
	var got api.Pushed
	if err := c.Send(ctx, http.MethodPost, "/fleets/"+url.PathEscape(args[0])+"/versions", q, "application/x-tar", pr, &got); err != nil {
		return nil, err
	}
	return pushedList(&got)
}

// entries are the files to send.
func (p *push) entries(pairs []string) (out []entry, err error) {
	if (p.dir == "") == (len(pairs) == 0) || len(pairs)%2 == 1 {
		return nil, usagef("name sensors and files in pairs, as in fleetscore model push sensors 1/pressure a.pkl 1/speed b.pkl, or give --dir")
	}
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, entry{"keys/" + pairs[i], pairs[i+1]})
	}
	if p.dir == "" {
		return out, nil
	}
	err = filepath.WalkDir(p.dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := file != p.dir && strings.ContainsAny(d.Name()[:1], "._")
		switch {
		case hidden && d.IsDir():
			return fs.SkipDir
		case hidden:
			return nil
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(file, folders.Manifest)); err != nil || file == p.dir {
				return nil
			}
		}
		rel, err := filepath.Rel(p.dir, file)
		if out = append(out, entry{"names/" + filepath.ToSlash(rel), file}); err == nil && d.IsDir() {
			err = fs.SkipDir // a model, with all that is in it
		}
		return err
	})
	if err == nil && len(out) == 0 {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "push models", p.dir, "there is no file")
	}
	return out, fileError(p.dir, err)
}

func fileError(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fleetscore.Errorf(fleetscore.NotFound, "read model", name, "there is no such file or folder")
	}
	return fleetscore.Errorf(fleetscore.Unavailable, "read model", name, "%w", pathCause(err))
}

// pack writes an archive of files.
func pack(ctx context.Context, w io.Writer, entries []entry) error {
	archive := tar.NewWriter(w)
	for _, e := range entries {
		if err := packOne(ctx, archive, e); err != nil {
			return err
		}
	}
	return archive.Close()
}

func packOne(ctx context.Context, archive *tar.Writer, e entry) error {
	if data, ok, err := folders.Archive(ctx, e.file); ok {
		if err == nil {
			err = archive.WriteHeader(&tar.Header{Name: e.name, Size: int64(len(data)), Mode: 0o644, Typeflag: tar.TypeReg})
		}
		if err == nil {
			_, err = archive.Write(data)
		}
		return err
	}
	f, err := os.Open(e.file)
	if err != nil {
		return fileError(e.file, err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return fileError(e.file, err)
	case !st.Mode().IsRegular():
		return fleetscore.Errorf(fleetscore.Invalid, "read model", e.file, "it is neither a file nor a folder of MLflow")
	}
	if err := archive.WriteHeader(&tar.Header{Name: e.name, Size: st.Size(), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(archive, f)
	return fileError(e.file, err)
}

// pushedList shows what came of a push or a rollback.
func pushedList(p *api.Pushed) (*listing, error) {
	l := &listing{columns: []string{"version", "files", "generation", "findings"}, single: true}
	var findings []string
	for _, f := range p.Findings {
		findings = append(findings, fmt.Sprintf("%s: %s", plural(int(f.Sensors), "sensor"), f.Message))
	}
	l.add(p, p.Number, p.Files, string(p.Generation), strings.Join(findings, "; "))
	if p.Problem != "" {
		return l, fleetscore.Errorf(fleetscore.Unavailable, "make a generation", "", "version %d is in the fleet's folder, but: %s", p.Number, p.Problem)
	}
	return l, nil
}
