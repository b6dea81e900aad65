package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// runNotebook measures fleetscore.score in a notebook's process, against joblib that scores
// each sensor in parallel by scikit-learn.
func runNotebook(ctx context.Context, b *bench) (*section, error) {
	count := 10_000
	if b.quick {
		count = 2_000
	}
	models, data, pack, err := b.packedFleet(ctx, count)
	if err != nil {
		return nil, err
	}
	out := func(name string) string { return filepath.Join(b.fast(), name+".f64") }
	contest := func(name, how, models, out string) *contestant {
		return &contestant{name: name, whole: true, run: func(int) (s sample, err error) {
			cmd := exec.CommandContext(ctx, b.python, filepath.Join(b.root, "bench", "notebook.py"), how, data, models, b.binary, out)
			cmd.Env, cmd.Stderr = pythonEnv(), os.Stderr
			text, err := cmd.Output()
			if err != nil {
				return s, err
			}
			_, err = fmt.Sscan(string(text), &s.Wall, &s.CPU)
			return s, err
		}}
	}
	cs := []*contestant{
		contest("fleetscore.score, packed models", "fleetscore", pack, out("packed")),
		contest("fleetscore.score, a file per model", "fleetscore", models, out("files")),
		contest("joblib.Parallel, pickle.load and predict", "joblib", models, out("joblib")),
	}
	got, err := duel(cs, b.repeats, 0)
	if err != nil {
		return nil, err
	}
	want, err := os.ReadFile(out("joblib"))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"packed", "files"} {
		if ours, err := os.ReadFile(out(name)); err != nil || !bytes.Equal(ours, want) {
			return nil, fmt.Errorf("%s: the predictions differ from joblib's (%v)", name, err)
		}
	}
	t := grid{Caption: fmt.Sprintf("%s models (ref_1) × 60 rows, from a DataFrame of pandas to a DataFrame, in a process that has imported its packages: the start of the program and of joblib's workers is measured.", thousands(int64(count))),
		Head: []string{"what", "wall", "CPU", "joblib ÷ this, wall", "joblib ÷ this, CPU"}}
	for i, c := range cs {
		wall, cpu := "–", "–"
		if i < 2 {
			wall, cpu = ratioOf(got[i], got[2], wallOf).String(), ratioOf(got[i], got[2], cpuOf).String()
		}
		t.add(c.name, took(median(pick(got[i], wallOf))), took(median(pick(got[i], cpuOf))), wall, cpu)
	}
	packed := ratioOf(got[0], got[2], wallOf)
	return &section{Tables: []grid{t}, Notes: []string{"The predictions of all rows are equal."}, Targets: []target{
		atLeast("fleetscore.score of a DataFrame against joblib, packed models", 50, packed.Median, "×", fmt.Sprintf(" (CPU %s×)", short(ratioOf(got[0], got[2], cpuOf).Median)))}}, nil
}
