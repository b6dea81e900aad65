// Package fleet knows which sensors there are and which model each has: models
// found in a folder by a template of their names, and immutable generations of
// them, compiled to native records and packed by shard range, so that a task
// finds its models in one piece of memory.
//
// It scores nothing. All functions and values are safe for concurrent use, except
// that one fleet is synced by one caller at a time.
package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Member is a sensor and the file with its model.
type Member struct {
	Key       fleetscore.Key
	Name      string // relative to the models' folder
	SizeBytes int64

	mark uint64 // changes with the content
}

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

// Scan lists the models of a folder. Names that start with "." or "_" are passed
// over. Two files for one key are an error of kind Conflict that names both.
func Scan(ctx context.Context, src store.Bucket, t Template) (*Folder, error) {
	f := &Folder{b: src}
	for info, err := range src.List(ctx, "", store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		name := string(info.Name)
		if name[0] == '.' || name[0] == '_' || strings.Contains(name, "/.") || strings.Contains(name, "/_") {
			continue
		}
		k, ok := t.Match(name)
		if !ok {
			f.Ignored = append(f.Ignored, name)
			continue
		}
		f.members = append(f.members, Member{Key: k, Name: name, SizeBytes: info.SizeBytes, mark: markOf(info)})
	}
	slices.SortFunc(f.members, compareMembers)
	for i, m := range f.members[min(1, len(f.members)):] {
		if was := f.members[i]; was.Key == m.Key {
			return nil, fleetscore.Errorf(fleetscore.Conflict, "list models", m.Key.String(), "the sensor has two models: %s and %s", was.Name, m.Name).
				WithHint("remove one of them")
		}
	}
	return f, nil
}

func compareMembers(a, b Member) int {
	if c := cmp.Compare(a.Key.Shard(), b.Key.Shard()); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	return cmp.Compare(a.Name, b.Name)
}

// Len is the number of sensors that have a model.
func (f *Folder) Len() int { return len(f.members) }

// Close does nothing: a folder holds no memory that must be given back.
func (f *Folder) Close() error { return nil }

// Keys are the sensors that have a model, by shard and key.
func (f *Folder) Keys() []fleetscore.Key {
	out := make([]fleetscore.Key, len(f.members))
	for i, m := range f.members {
		out[i] = m.Key
	}
	return out
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
	if !ok {
		return nil, fleetscore.Digest{}, noModel(k)
	}
	if m := f.members[i]; m.SizeBytes > MaxModelBytes {
		return nil, fleetscore.Digest{}, tooLarge(m)
	}
	data, err := store.ReadAll(ctx, f.b, fleetscore.BlobName(f.members[i].Name))
	if err != nil {
		return nil, fleetscore.Digest{}, err
	}
	return data, fleetscore.DigestOf(data), nil
}

func noModel(k fleetscore.Key) error {
	return fleetscore.Errorf(fleetscore.NotFound, "find model", k.String(), "the fleet has no model for this sensor")
}

func tooLarge(m Member) error {
	return fleetscore.Errorf(fleetscore.Invalid, "read model", m.Name, "it has %d bytes, more than the %d allowed", m.SizeBytes, int64(MaxModelBytes))
}
