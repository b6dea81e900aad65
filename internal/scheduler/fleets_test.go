package scheduler

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

// TestJobNeverLists: a job is planned from the current generation while the
// models' folder can't be listed.
func TestJobNeverLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	if _, err := w.fleets.Sync(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start(&storetest.Faulty{Bucket: w.bucket(), Fail: func(op string, name fleetscore.BlobName) error {
		if op == "list" && strings.HasPrefix(string(name), "models/m") {
			return fleetscore.Errorf(fleetscore.Unavailable, op, string(name), "injected")
		}
		return nil
	}})
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	l := w.lease("n1")
	if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
		t.Fatal(err)
	}
	if got := w.wait(j.ID, ended); got.State != fleetscore.JobSucceeded || got.Expected != 3 {
		t.Errorf("job %+v", got)
	}
	if _, err := w.fleets.Sync(t.Context(), "f"); !fleetscore.Unavailable.Is(err) {
		t.Errorf("the folder can be listed: %v", err)
	}
	if _, err := w.fleets.Status("f"); err == nil {
		t.Error("the fleet doesn't say that its models can't be read")
	}
}

// TestJobKeepsItsImage: a job waits while its pool's image can't be found, and says why; then it
// keeps the image, and so do its results, wherever the pool's tag moves.
func TestJobKeepsItsImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.stop()
	var image atomic.Value
	image.Store("")
	w.image = func(_ context.Context, p fleetscore.PoolConfig) (string, error) {
		if i := image.Load().(string); i != "" {
			return i, nil
		}
		return "", fleetscore.Errorf(fleetscore.NotFound, "find image", p.Provider, "the tag is gone")
	}
	w.start(w.bucket())
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.wait(j.ID, func(j fleetscore.Job) bool {
		return j.State == fleetscore.JobWaiting && strings.Contains(j.Reason, "waits for the image of pool cpu: find image local: the tag is gone")
	})
	image.Store("box@first")
	w.rows(day.Add(9*time.Hour + time.Minute)) // an event
	w.wait(j.ID, func(j fleetscore.Job) bool { return j.State == fleetscore.JobQueued })
	image.Store("box@second")
	if _, err := w.ledger.UpdateNode(t.Context(), "n1", func(n *fleetscore.Node) error { n.Image = "box@first"; return nil }); err != nil {
		t.Fatal(err)
	}
	l := w.lease("n1")
	if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
		t.Fatal(err)
	}
	if got := w.wait(j.ID, ended); got.State != fleetscore.JobSucceeded || got.Image != "box@first" || l.Image != "box@first" {
		t.Errorf("job %+v, lease %+v", got, l)
	}
	notes, err := w.catalog.ImageNotes(t.Context(), time.Now())
	if err != nil || len(notes) != 1 || notes["box@first"].Job != j.ID {
		t.Errorf("notes of images: %+v, %v", notes, err)
	}
}

// environments is a world of a pool of containers whose pipeline has an image for models of
// scikit-learn 0.24, and one that is gone for models of 0.1. Models of devices are of these releases. take
// leases a task to a node in an image.
func environments(t *testing.T, releases map[string]string) (w *world, take func(image string) dispatch.Lease) {
	t.Helper()
	w = newWorld(t, fleetscore.PipelineConfig{})
	w.stop()
	w.image = func(_ context.Context, p fleetscore.PoolConfig) (string, error) {
		if p.Docker.Image == "gone" {
			return "", fleetscore.Errorf(fleetscore.NotFound, "find image", "gone", "the tag is gone")
		}
		return p.Docker.Image + "@1", nil
	}
	w.start(w.bucket())
	for device, release := range releases { // a class that only Python knows
		model := "\x80\x02cmy\nDetector\n)\x81}X\x10\x00\x00\x00_sklearn_versionX" + string(rune(len(release))) + "\x00\x00\x00" + release + "sb."
		if err := store.WriteAll(t.Context(), w.bucket(), fleetscore.BlobName("models/m/model_"+device), []byte(model), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	cfg, _, _, err := w.ledger.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := cfg.Pipelines["p"]
	p.Runtime, p.Limits.Tries, p.Python = fleetscore.RuntimePython, 1, fleetscore.PythonConfig{Environments: []fleetscore.PythonEnvironment{{SKLearn: "1", Path: "new"}, {SKLearn: "0.24", Image: "old"}, {SKLearn: "0.1", Image: "gone"}}}
	cfg.Pipelines["p"] = p
	cfg.Fleets["f"] = fleetscore.FleetConfig{Path: "models/m", Model: "model_{Device}", KeepFiles: true}
	cfg.Pools["cpu"] = fleetscore.PoolConfig{Provider: "docker", Slots: 1, Scale: fleetscore.ScaleConfig{Max: 1}, Docker: &fleetscore.DockerConfig{Image: "box"}}
	if _, err := w.ledger.PutConfig(t.Context(), time.Now(), "images", cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := w.fleets.Sync(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	w.rows(day.Add(9 * time.Hour))
	return w, func(image string) dispatch.Lease {
		t.Helper()
		id := fleetscore.NodeID("n-" + image)
		if _, err := w.ledger.UpdateNode(t.Context(), id, func(n *fleetscore.Node) error { n.Image = image; return nil }); err != nil {
			t.Fatal(err)
		}
		l := w.lease(id)
		if l.Image != image {
			t.Errorf("a node in %s has a task of %s", image, l.Image)
		}
		return l
	}
}

// TestOneImageForAll: if every model needs the same image, its tasks take the rows of unexpected
// keys too, so that no other task reads the dataset again; each sensor ends with one outcome also if they fail.
func TestOneImageForAll(t *testing.T) {
	t.Parallel()
	w, take := environments(t, map[string]string{"0": "0.24.2", "1": "0.24.1", "2": "0.24.2"})
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	l := take("old@1")
	if len(l.Keys)+len(l.Except) != 0 || l.Environment != 2 || l.Shards != fleetscore.AllShards {
		t.Errorf("the task has keys %q but %q of shards %v, environment %d", l.Keys, l.Except, l.Shards, l.Environment)
	}
	if err := w.broker.Complete(t.Context(), l.ID, dispatch.Result{Error: "no Python"}); err != nil {
		t.Fatal(err)
	}
	got := w.wait(j.ID, ended)
	if d := cmp.Diff([]fleetscore.JobEnvironment{{Number: 2, SKLearn: "0.24", Image: "old@1", Sensors: 3}}, got.Environments); d != "" || got.Tasks != 1 {
		t.Errorf("the job has %d tasks and (-want +got):\n%s", got.Tasks, d)
	}
	if d := cmp.Diff(fleetscore.Counts{fleetscore.Failed: 3}, got.Outcomes); d != "" {
		t.Errorf("outcomes (-want +got):\n%s", d)
	}
}

// TestImagesOfMovedJob: results of tasks that ran before their job was moved to another pool name the
// image that they were made in, so that it stays.
func TestImagesOfMovedJob(t *testing.T) {
	t.Parallel()
	w, take := environments(t, map[string]string{"0": "0.24.2"})
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	old := take("old@1")
	if err := w.broker.Complete(t.Context(), old.ID, w.score(old)); err != nil {
		t.Fatal(err)
	}
	if err := w.ledger.UpdateJobs(t.Context(), "p", nil, func(j *fleetscore.Job) { j.Config.Pool = "cpu2" }); err != nil {
		t.Fatal(err)
	}
	if got, err := w.ledger.Job(t.Context(), j.ID); err != nil || !slices.Contains(got.Images(), "old@1") {
		t.Errorf("the moved job has the images %q, %v", got.Images(), err)
	}
	if err := w.ledger.UpdateJobs(t.Context(), "p", nil, func(j *fleetscore.Job) { j.Config.Pool = "cpu" }); err != nil {
		t.Fatal(err)
	}
	rest := w.lease("other")
	if err := w.broker.Complete(t.Context(), rest.ID, w.score(rest)); err != nil {
		t.Fatal(err)
	}
	w.wait(j.ID, ended)
	if notes, err := w.catalog.ImageNotes(t.Context(), time.Now()); err != nil || notes["old@1"].Job != j.ID {
		t.Errorf("notes of images: %+v, %v", notes, err)
	}
	tasks, err := w.ledger.Tasks(t.Context(), j.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if want := map[int]string{2: "old@1"}[task.Environment]; task.Image != want {
			t.Errorf("the task of environment %d has the image %q, want %q", task.Environment, task.Image, want)
		}
	}
}

// TestImagesOfEnvironments: sensors whose models need an image of their own get tasks that nodes
// in this image take, each sensor ends with one outcome also if such a task fails, and the images
// are noted with the results. A rerun does the same for its sensors. An image that no model needs
// may be gone.
func TestImagesOfEnvironments(t *testing.T) {
	t.Parallel()
	w, take := environments(t, map[string]string{"0": "0.24.2", "1": "1.2.0"})
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	rest, old := take("box@1"), take("old@1")
	if fmt.Sprint(rest.Keys, rest.Except, rest.Environment, old.Keys, old.Except, old.Environment) != "[] [0] 0 [0] [] 2" {
		t.Errorf("the rest: %q but %q, environment %d; of the image: %q but %q, environment %d", rest.Keys, rest.Except, rest.Environment, old.Keys, old.Except, old.Environment)
	}
	if err := w.broker.Complete(t.Context(), rest.ID, w.score(rest)); err != nil {
		t.Fatal(err)
	}
	if err := w.broker.Complete(t.Context(), old.ID, dispatch.Result{Error: "no Python"}); err != nil {
		t.Fatal(err)
	}
	got := w.wait(j.ID, ended)
	if d := cmp.Diff(fleetscore.Counts{fleetscore.Scored: 1, fleetscore.NoData: 1, fleetscore.Failed: 1}, got.Outcomes); d != "" {
		t.Errorf("outcomes (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]fleetscore.JobEnvironment{{Number: 2, SKLearn: "0.24", Image: "old@1", Sensors: 1}}, got.Environments); d != "" || got.Image != "box@1" {
		t.Errorf("the job runs in %s and (-want +got):\n%s", got.Image, d)
	}
	if notes, err := w.catalog.ImageNotes(t.Context(), time.Now()); err != nil || notes["old@1"].Job != j.ID || notes["box@1"].Job != j.ID {
		t.Errorf("notes of images: %+v, %v", notes, err)
	}
	items, err := w.catalog.Coverage("p").JobItems(t.Context(), j.ID, j.Interval)
	if failed := slices.IndexFunc(items, func(i fleetscore.Item) bool { return i.Outcome == fleetscore.Failed }); err != nil || failed < 0 || items[failed].Image != "old@1" {
		t.Errorf("the outcome of the failed task doesn't name its image: %+v, %v", items, err)
	}
	again, err := w.Rerun(t.Context(), fleetscore.Rerun{Of: j.ID, Failed: true})
	if err != nil {
		t.Fatal(err)
	}
	l := take("old@1")
	if fmt.Sprint(l.Keys, l.Environment) != "[0] 2" {
		t.Errorf("the rerun's task: %q, environment %d", l.Keys, l.Environment)
	}
	if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
		t.Fatal(err)
	}
	if got := w.wait(again.ID, ended); got.State != fleetscore.JobSucceeded || got.Tasks != 1 || got.Outcomes[fleetscore.Scored] != 2 {
		t.Errorf("the rerun: %+v", got)
	}
	for _, c := range []struct {
		which fleetscore.Rerun
		want  fleetscore.Counts
	}{
		{fleetscore.Rerun{Keys: []string{"0", "1"}}, fleetscore.Counts{fleetscore.Scored: 1, fleetscore.Failed: 1, fleetscore.NoData: 1}},
		{fleetscore.Rerun{All: true}, fleetscore.Counts{fleetscore.Scored: 1, fleetscore.Failed: 2}},
	} {
		c.which.Of = again.ID
		if again, err = w.Rerun(t.Context(), c.which); err != nil {
			t.Fatal(err)
		}
		rest, old := take("box@1"), take("old@1")
		if err := w.broker.Complete(t.Context(), old.ID, w.score(old)); err != nil {
			t.Fatal(err)
		}
		if err := w.broker.Complete(t.Context(), rest.ID, dispatch.Result{Error: "no Python"}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, w.wait(again.ID, ended).Outcomes); d != "" {
			t.Errorf("rerun of %+v, when the task of the rest fails (-want +got):\n%s", c.which, d)
		}
	}
}

// TestCode: only code that lies in a folder which may be read goes into the store, where
// everybody who may read results could read it; and an archive stays there while jobs that were
// planned with it may run.
func TestCode(t *testing.T) {
	t.Parallel()
	dir, secret := t.TempDir(), t.TempDir()
	write := func(dir, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "score.py"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := fleetscore.PipelineConfig{Runtime: fleetscore.RuntimePython, Python: fleetscore.PythonConfig{Code: secret}}
	w := newWorld(t, p)
	w.stop()
	var err error
	if w.roots, err = store.FindRoots([]string{dir}); err != nil {
		t.Fatal(err)
	}
	w.start(w.bucket())
	w.set(time.Now())
	minute := 0
	planned := func() {
		t.Helper()
		minute++
		w.rows(day.Add(9*time.Hour + time.Duration(minute)*time.Minute))
		j, err := w.Submit(t.Context(), "p", nil)
		if err != nil {
			t.Fatal(err)
		}
		w.wait(j.ID, func(j fleetscore.Job) bool { return j.Planned != nil })
	}
	archives := func() []string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(w.dir, "store", catalog.CodeFolder("p"), "*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	write(secret, "token")
	planned()
	if got := archives(); len(got) != 0 {
		t.Fatalf("code of a folder that may not be read is in the store: %v", got)
	}
	cfg, _, _, err := w.ledger.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	have := cfg.Pipelines["p"]
	have.Python.Code = dir
	cfg.Pipelines["p"] = have
	if _, err := w.ledger.PutConfig(t.Context(), time.Now(), "other", cfg); err != nil {
		t.Fatal(err)
	}
	write(dir, "first")
	planned()
	first := archives()
	if len(first) != 1 {
		t.Fatalf("archives: %v, want one", first)
	}
	age := func(name string) {
		t.Helper()
		if err := os.Chtimes(name, time.Time{}, time.Now().Add(-2*oldCode)); err != nil {
			t.Fatal(err)
		}
	}
	age(first[0])
	planned() // with the same code
	write(dir, "second")
	planned()
	if got := archives(); len(got) != 2 {
		t.Fatalf("archives: %v, want both, as a job was planned with the first a moment ago", got)
	}
	age(first[0])
	write(dir, "third")
	planned()
	if got := archives(); len(got) != 2 || slices.Contains(got, first[0]) {
		t.Errorf("archives: %v, want the second and the third", got)
	}
}

// TestJobKeepsItsGeneration: what a job was planned with stays, however often the
// models change; without a job it goes.
func TestJobKeepsItsGeneration(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(ctx, "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	l := w.lease("n1")
	w.set(time.Now().Add(3 * time.Hour)) // generations are of age
	before := l.Generation
	change := func(from int) {
		t.Helper()
		for i := range 5 {
			if err := store.WriteAll(ctx, w.bucket(), "models/m/model_0", fmt.Append(nil, "other ", from+i), store.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			c, err := w.fleets.Sync(ctx, "f")
			if err != nil || c.Generation.ID == before { // the loop may have found the change first
				t.Fatalf("%+v, %v", c, err)
			}
			before = c.Generation.ID
		}
	}
	change(0)
	l.Generation = w.wait(j.ID, func(fleetscore.Job) bool { return true }).Generation
	if g, err := fleet.Load(ctx, w.bucket(), "f", l.Generation); err != nil || g.ID != l.Generation {
		t.Fatalf("the job's generation is gone: %v", err)
	}
	pack, err := fleet.OpenPack(ctx, w.bucket(), "f", l.Generation, fleetscore.AllShards)
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := pack.Find("0"); !ok || pack.At(e).Digest != fleetscore.DigestOf([]byte("model")) {
		t.Error("the job's generation has another model")
	}
	pack.Close()
	if _, err := w.Cancel(ctx, j.ID); err != nil {
		t.Fatal(err)
	}
	w.wait(j.ID, ended)
	change(5)
	if _, err := fleet.Load(ctx, w.bucket(), "f", l.Generation); !fleetscore.NotFound.Is(err) {
		t.Errorf("a generation that nobody needs: %v", err)
	}
}
