// Package fleet knows which sensors there are and which model each has: found in
// a folder by a template of their names, or named by a list of sensors; and
// immutable generations of them, compiled to native records and packed by shard
// range, so that a task finds its models in one piece of memory.
//
// It scores nothing. All functions and values are safe for concurrent use, except
// that one fleet is synced by one caller at a time.
package fleet

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet/folders"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Spec says what a fleet is: which keys are expected, and which model each has.
//
// Without a list of sensors, the expected keys are those whose model's name fits
// the template, or without a template every file's name. With a list they are the list's, and a key's model is the first
// that there is of: what the list's column "model" names, the file that the
// template names, the first default whose class the key is of. A key may be left
// without a model.
type Spec struct {
	Fleet    string // its name
	KeyNames []string
	Model    Template // the zero value for none
	Sensors  string   // the list of sensors, a file in the models' folder; empty for none
	Defaults []Default
	// Originals says that packs keep the files of all models, not only of those that
	// can't be scored natively: other runtimes need them.
	Originals bool
}

// SpecOf is the spec of a configured fleet. Its key columns are those given if it names none itself.
func SpecOf(name string, cfg fleetscore.FleetConfig, keyNames []string) (Spec, error) {
	keyNames = cfg.KeyOr(keyNames)
	s := Spec{Fleet: name, KeyNames: keyNames, Sensors: cfg.Sensors, Originals: cfg.KeepFiles}
	for _, d := range cfg.Defaults {
		s.Defaults = append(s.Defaults, Default{d.When, d.Model})
	}
	if cfg.Model == "" && cfg.Sensors != "" {
		return s, nil
	}
	var err error
	s.Model, err = ParseTemplate(cfg.Model, keyNames)
	return s, err
}

// Member is an expected sensor and the file with its model.
type Member struct {
	Key       fleetscore.Key
	Name      string // relative to the models' folder; empty if it has no model
	SizeBytes int64

	mark    uint64 // changes with the content; 0 if that can't be told
	problem string // why the file can't be used
	shared  bool   // many have the file
}

// noMark is the mark of a member without a model.
const noMark = 1

// Folder is a folder of models as it was when it was listed.
type Folder struct {
	b       store.Bucket
	members []Member // by shard, then key
	Ignored []string // names that no key's model has, in order

	once  sync.Once // guards the making of what follows
	byKey map[fleetscore.Key]int32
}

// MaxModelBytes is the largest model that is read.
const MaxModelBytes = 1 << 30

// Scan lists the models of a folder by a template of their names.
func Scan(ctx context.Context, src store.Bucket, t Template) (*Folder, error) {
	return ScanSpec(ctx, src, Spec{KeyNames: t.KeyNames(), Model: t})
}

// ScanSpec lists the models of a folder as the spec says. Names that start with
// "." or "_" are passed over. A folder that MLflow has written counts as a file.
func ScanSpec(ctx context.Context, src store.Bucket, spec Spec) (*Folder, error) {
	src = folders.Fold(src)
	f := &Folder{b: src}
	files := map[string]store.Info{} // those that a list or a default may name
	listed := spec.Sensors != ""
	add := func(name string, m Member) {
		k, ok := spec.Model.Match(name)
		if spec.Model.String() == "" && !listed {
			k, ok = fleetscore.Key(name), true
		}
		if ok {
			m.Key, m.Name = k, name
			f.members = append(f.members, m)
		} else if !listed {
			f.Ignored = append(f.Ignored, name)
		}
	}
	links := map[string]bool{}
	refused := func(name fleetscore.BlobName) {
		if !passedOver(string(name)) {
			links[string(name)] = true
			add(string(name), Member{problem: leadsOut})
		}
	}
	for info, err := range src.List(ctx, "", store.ListOptions{Refused: refused}) {
		if err != nil {
			return nil, err
		}
		name := string(info.Name)
		if passedOver(name) {
			continue
		}
		if listed {
			files[name] = info
		}
		add(name, Member{SizeBytes: info.SizeBytes, mark: markOf(info)})
	}
	slices.SortFunc(f.members, compareMembers)
	f.members = single(f.members)
	if !listed {
		return f, nil
	}
	sensors, err := readSensors(ctx, src, spec.Sensors, spec.KeyNames)
	if err != nil {
		return nil, err
	}
	f.expect(spec, sensors, files, links)
	return f, nil
}

// leadsOut is why a symbolic link is no model.
const leadsOut = "it is a symbolic link to nothing, to a folder, or out of the models' folder, which nothing is read through; put the file itself there"

// passedOver reports whether a name is none of a model: it, or a folder of it,
// starts with "." or "_".
func passedOver(name string) bool {
	return name[0] == '.' || name[0] == '_' || strings.Contains(name, "/.") || strings.Contains(name, "/_")
}

// single leaves each key once: of several files none can be told to be the right
// one.
func single(members []Member) []Member {
	out := members[:0]
	for _, m := range members {
		if n := len(out) - 1; n >= 0 && out[n].Key == m.Key {
			out[n].problem = "the sensor has two models, " + out[n].Name + " and " + m.Name + "; remove one of them"
			out[n].mark = 0
			continue
		}
		out = append(out, m)
	}
	return out
}

// expect makes the sensors the members.
func (f *Folder) expect(spec Spec, sensors []sensor, files map[string]store.Info, links map[string]bool) {
	found := f.members
	f.members = make([]Member, 0, len(sensors))
	used := map[string]int{}
	for _, s := range sensors {
		m := Member{Key: s.key, Name: s.model, mark: noMark}
		for len(found) > 0 && compareKeys(found[0].Key, s.key) < 0 {
			found = found[1:]
		}
		if m.Name == "" && len(found) > 0 && found[0].Key == s.key {
			m = found[0]
		}
		if i := slices.IndexFunc(spec.Defaults, func(d Default) bool { return d.fits(spec.KeyNames, s.key) }); m.Name == "" && i >= 0 {
			m.Name = spec.Defaults[i].Model
		}
		if m.Name != "" && m.problem == "" {
			if info, ok := files[m.Name]; ok {
				m.SizeBytes, m.mark = info.SizeBytes, markOf(info)
			} else if links[m.Name] {
				m.problem, m.mark = leadsOut, 0
			} else {
				m.problem, m.mark = "the file "+m.Name+" isn't there", 0
			}
			used[m.Name]++
		}
		f.members = append(f.members, m)
	}
	for i := range f.members {
		m := &f.members[i]
		m.shared = m.problem == "" && used[m.Name] > sharedBy
	}
	for _, d := range spec.Defaults {
		used[d.Model]++
	}
	used[spec.Sensors]++
	for name := range links {
		if used[name] == 0 {
			f.Ignored = append(f.Ignored, name)
		}
	}
	for name := range files {
		if used[name] == 0 {
			f.Ignored = append(f.Ignored, name)
		}
	}
	slices.Sort(f.Ignored)
}

// sharedBy is how many sensors may have a model before it moves from their
// segments to one that they share.
const sharedBy = 8

func compareKeys(a, b fleetscore.Key) int {
	if a == b {
		return 0
	}
	if c := cmp.Compare(a.Shard(), b.Shard()); c != 0 {
		return c
	}
	return cmp.Compare(a, b)
}

func compareMembers(a, b Member) int {
	return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Name, b.Name))
}

// Len is the number of expected sensors.
func (f *Folder) Len() int { return len(f.members) }

// Close does nothing: a folder holds no memory that must be given back.
func (f *Folder) Close() error { return nil }

// Keys are the expected sensors, by shard and key.
func (f *Folder) Keys() []fleetscore.Key {
	out := make([]fleetscore.Key, len(f.members))
	for i, m := range f.members {
		out[i] = m.Key
	}
	return out
}

// Files yields the expected sensors that have a file of their own or share one,
// and its name.
func (f *Folder) Files() iter.Seq2[fleetscore.Key, string] {
	return func(yield func(fleetscore.Key, string) bool) {
		for _, m := range f.members {
			if m.Name != "" && m.problem == "" && !yield(m.Key, m.Name) {
				return
			}
		}
	}
}

// Model reads a key's model; kind NotFound if it has none.
func (f *Folder) Model(ctx context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error) {
	f.once.Do(func() {
		f.byKey = make(map[fleetscore.Key]int32, len(f.members))
		for i, m := range f.members {
			f.byKey[m.Key] = int32(i)
		}
	})
	i, ok := f.byKey[k]
	if !ok || f.members[i].Name == "" {
		return nil, fleetscore.Digest{}, noModel(k)
	}
	m := f.members[i]
	switch {
	case m.problem != "":
		return nil, fleetscore.Digest{}, fleetscore.Errorf(fleetscore.Invalid, "read model", m.Name, "%s", m.problem)
	case m.SizeBytes > MaxModelBytes:
		return nil, fleetscore.Digest{}, tooLarge(m, MaxModelBytes)
	}
	data, err := store.ReadAll(ctx, f.b, fleetscore.BlobName(m.Name))
	if err != nil {
		return nil, fleetscore.Digest{}, err
	}
	return data, fleetscore.DigestOf(data), nil
}

// Original reads a key's model and gives the name of its file.
func (f *Folder) Original(ctx context.Context, k fleetscore.Key) ([]byte, string, fleetscore.Digest, error) {
	data, digest, err := f.Model(ctx, k)
	name := ""
	if i, ok := f.byKey[k]; ok {
		name = f.members[i].Name
	}
	return data, name, digest, err
}

func noModel(k fleetscore.Key) error {
	return fleetscore.Errorf(fleetscore.NotFound, "find model", k.String(), "the fleet has no model for this sensor")
}

func tooLarge(m Member, limit int64) error {
	return fleetscore.Errorf(fleetscore.Invalid, "read model", m.Name, "it has %d bytes, more than the %d allowed", m.SizeBytes, limit)
}
