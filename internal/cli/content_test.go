package cli

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// worked are the sensors that a job scored itself, and how many kept earlier results.
func (p *process) worked(j fleetscore.Job) (keys []string, kept int) {
	p.t.Helper()
	var items api.List[fleetscore.Item]
	if err := p.Get(p.t.Context(), "/jobs/"+string(j.ID)+"/coverage", nil, &items); err != nil {
		p.t.Fatal(err)
	}
	for _, i := range items.Items {
		switch {
		case i.Outcome != fleetscore.Scored:
			p.t.Errorf("%s of %s: %s %s", i.Key, j.ID, i.Outcome, i.Reason)
		case i.Kept == "":
			keys = append(keys, i.Key.String())
		default:
			kept++
		}
	}
	return keys, kept
}

// coverageKept is the column kept of the table of a job's coverage. It looks also whether the
// job's page has it.
func (p *process) coverageKept(j fleetscore.Job) (kept []string) {
	p.t.Helper()
	code, stdout, stderr := command(p.t, "job", "coverage", string(j.ID), "-o", "csv", "--server=http://"+p.addr)
	lines, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	if code != 0 || err != nil || len(lines) == 0 {
		p.t.Fatalf("job coverage: exit %d, %v\n%s", code, err, stderr)
	}
	column := slices.Index(lines[0], "kept")
	if column < 0 {
		p.t.Fatalf("job coverage has the columns %v", lines[0])
	}
	_, page := p.page("/jobs/" + string(j.ID))
	for _, line := range lines[1:] {
		kept = append(kept, line[column])
		if id := line[column]; (id == "") == strings.Contains(page, "Kept of") || !strings.Contains(page, `<a href="/jobs/`+id) {
			p.t.Errorf("the page of %s doesn't tell that the results of %q stay", j.ID, id)
		}
	}
	return kept
}

// said is what is visible of a pipeline's predictions.
func (p *process) said(pipeline string) (out []string) {
	p.t.Helper()
	rows := p.predictions(pipeline)
	for i, at := range rows.Times {
		k := rows.KeyIndex[i]
		out = append(out, fmt.Sprint(at, " ", rows.Keys[k], " ", rows.Values[0][i], " ", rows.Prediction[i], " ", rows.Score[i], " ", rows.Models[k].Short()))
	}
	slices.Sort(out)
	return out
}

// TestUnchangedSensorsAreNotScored: a job over an interval that was scored before works only
// on sensors with another model or other rows, and what is visible then is what a first run
// finds. A rerun of a sensor by its key is carried out always, and all sensors are scored if
// that is asked for.
func TestUnchangedSensorsAreNotScored(t *testing.T) {
	t.Parallel()
	ref, dir := testkit.Reference(t), t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "models"), os.DirFS(filepath.Join(ref, "models"))); err != nil {
		t.Fatal(err)
	}
	p := startServer(t, fmt.Sprintf(`
fleets: {sensors: {path: %s/models, model: "model_{Device}_{Tag}"}}
pools: {cpu: {slots: 2, scale: {max: 1}}}
pipelines:
  again: {dataset: history, fleet: sensors, features: [Value], pool: cpu}
  fresh: {dataset: history, fleet: sensors, features: [Value], pool: cpu}
`, dir))
	p.uploadReference()
	server := "--server=http://" + p.addr
	if status, text := p.page("/servers"); status != 404 || !strings.Contains(text, "shares its work with no other") {
		t.Errorf("the page of the servers of a lone server: status %d\n%s", status, text)
	}
	first := submitted(t, p, "again")
	keys, _ := p.worked(first)
	all := len(keys)
	if all != 15 || first.Kept != 0 {
		t.Fatalf("the first job worked on %v and kept %d", keys, first.Kept)
	}
	again := func(what string, want ...string) fleetscore.Job {
		t.Helper()
		j := submitted(t, p, "again", "--from", first.Interval.From.Format(time.RFC3339Nano), "--to", first.Interval.To.Format(time.RFC3339Nano))
		keys, kept := p.worked(j)
		if d := cmp.Diff(want, keys); d != "" || kept != all-len(want) || j.Kept != int64(kept) || j.State != fleetscore.JobSucceeded || j.Rows != first.Rows {
			t.Errorf("%s: the job worked on %v and kept %d: %+v", what, keys, kept, j)
		}
		if !strings.Contains(j.Reason, fmt.Sprintf("the results of an earlier job stay for %s,", fleetscore.Counted(kept, "sensor"))) {
			t.Errorf("%s: the job's reason is %q", what, j.Reason)
		}
		return j
	}
	before := p.said("again")
	again("nothing has changed")
	if d := cmp.Diff(before, p.said("again")); d != "" {
		t.Errorf("without a change (-before +after):\n%s", d)
	}

	other, err := os.ReadFile(filepath.Join(ref, "models", "model_1_1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "models", "model_3_2"), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "fleet", "sync", "sensors", server); code != 0 {
		t.Fatalf("fleet sync: exit %d\n%s", code, stderr)
	}
	again("one model has changed", "3/2")

	row := filepath.Join(dir, "row.csv")
	if err := os.WriteFile(row, []byte("TS,Device,Tag,Value\n2018-08-28 23:00:05.000,1,4,1000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "dataset", "upload", "history", row, server); code != 0 {
		t.Fatalf("upload: exit %d\n%s", code, stderr)
	}
	last := again("one row has changed", "1/4")
	submitted(t, p, "fresh")
	if d := cmp.Diff(p.said("fresh"), p.said("again")); d != "" || cmp.Equal(before, p.said("fresh")) {
		t.Errorf("against a first run (-first +again):\n%s", d)
	}

	rerun := jsonOf[fleetscore.Job](t, "job", "rerun", string(last.ID), "--key", "2/5", "--wait", server)
	if keys, kept := p.worked(rerun); len(keys) != 1 || keys[0] != "2/5" || kept != all-1 {
		t.Errorf("the rerun worked on %v and kept %d", keys, kept)
	}
	again("after the rerun")
	iv := []string{"--from", first.Interval.From.Format(time.RFC3339Nano), "--to", first.Interval.To.Format(time.RFC3339Nano)}
	shown := p.coverageKept(again("the coverage tells whose results stay"))
	if len(shown) != all || slices.ContainsFunc(shown, func(kept string) bool { return !strings.HasPrefix(kept, "again-") }) {
		t.Errorf("the table of the coverage says that these jobs' results stay: %q", shown)
	}
	for _, args := range [][]string{{"job", "rerun", string(last.ID), "--all"}, append([]string{"job", "submit", "again", "--again"}, iv...)} {
		j := jsonOf[fleetscore.Job](t, append(args, "--wait", server)...)
		if keys, kept := p.worked(j); len(keys) != all || kept != 0 || j.Kept != 0 || !j.Again || j.Rerun != nil {
			t.Errorf("%q worked on %v and kept %d: %+v", args, keys, kept, j)
		}
		if shown := p.coverageKept(j); slices.ContainsFunc(shown, func(kept string) bool { return kept != "" }) {
			t.Errorf("%q: the table of the coverage says that these jobs' results stay: %q", args, shown)
		}
	}
	if code, _, stderr := command(t, "job", "rerun", string(last.ID), "--all", "--failed", server); code != exitUsage {
		t.Errorf("rerun of all and some: exit %d\n%s", code, stderr)
	}
	if d := cmp.Diff(p.said("fresh"), p.said("again")); d != "" {
		t.Errorf("after the rerun (-first +again):\n%s", d)
	}
}
