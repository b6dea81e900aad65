package fleet

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Source is the models of a fleet, wherever they lie: *Folder or *Pack. It is
// safe for concurrent use.
type Source interface {
	// Len is the number of expected keys.
	Len() int
	// Keys are the expected keys, by shard and key.
	Keys() []fleetscore.Key
	// Model gives a key's model: a file as it is or a native record, and the
	// file's digest. Kind NotFound if the key has none. The bytes must not be
	// changed, nor be used after Close.
	Model(ctx context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error)
	// Close gives memory back.
	Close() error
}

// Open opens the models in a folder: a pack, if Sync made one there, else files
// as the spec says. A pack must have the spec's key columns.
func Open(ctx context.Context, b store.Bucket, spec Spec) (Source, error) {
	g, err := PackIn(ctx, b)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return ScanSpec(ctx, b, spec)
	}
	if want := spec.KeyNames; !slices.Equal(g.KeyNames, want) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "open pack", g.Fleet, "its key columns are %s, not %s", strings.Join(g.KeyNames, ", "), strings.Join(want, ", ")).
			WithHint("name the columns in the pack's order, or pack the models again")
	}
	return openPack(ctx, b, g, fleetscore.AllShards, maxHeldBytes)
}

// PackIn is the current generation of the pack in a folder, nil if it holds none.
func PackIn(ctx context.Context, b store.Bucket) (*Generation, error) {
	data, err := store.ReadAll(ctx, b, currentName)
	if fleetscore.NotFound.Is(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var p pointer
	if json.Unmarshal(data, &p) != nil || p.Pack == 0 {
		return nil, nil // somebody's file
	}
	return current(ctx, b)
}
