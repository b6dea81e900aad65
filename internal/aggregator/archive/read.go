package archive

import (
	"context"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/journal"
	"github.com/fleetscore/fleetscore/internal/table/readings"
)

// margin is by how much arrivals may be wrong of a server whose clock wasn't trusted, and by how
// much readings may be early.
const margin = fleetscore.Micros(24 * 3600 * 1e6)

// Read calls fn with the messages of an archive that may hold readings later than a time. Those of
// one partition come in their order, one partition after the other.
func Read(ctx context.Context, b store.Bucket, cfg fleetscore.HubConfig, after fleetscore.Micros, fn func(hub.Message) error) error {
	const op = "read archive"
	files := root(*cfg.Archive) + "hub/"
	var before fleetscore.BlobName // is read unless the next file of the partition tells that it is too old
	read := func() error {
		if before == "" {
			return nil
		}
		data, err := store.ReadAll(ctx, b, before)
		if fleetscore.NotFound.Is(err) {
			return nil // it was too old for the retention meanwhile
		} else if err != nil {
			return err
		}
		if err := readings.Decode(data, cfg.Key, cfg.Time, fn); err != nil {
			if _, ours := err.(*fleetscore.Error); ours || ctx.Err() != nil {
				return err
			}
			return fleetscore.Errorf(fleetscore.Corrupt, op, string(before), "%w", err).
				WithHint("restore this file from a backup; without one, move it away, and its readings are left out")
		}
		return nil
	}
	for info, err := range b.List(ctx, files, store.ListOptions{}) {
		if err != nil {
			return err
		}
		partition, name, ok := strings.Cut(strings.TrimPrefix(string(info.Name), files), "/")
		if _, err := strconv.Atoi(partition); err != nil || !ok || path.Ext(name) != ".parquet" {
			continue
		}
		named, err := time.Parse(pathLayout, strings.TrimSuffix(name, ".parquet"))
		if err != nil {
			continue // it isn't one of ours
		}
		if !strings.HasPrefix(string(before), files+partition+"/") || fleetscore.MicrosOf(named)+margin > after {
			if err := read(); err != nil {
				return err
			}
		}
		before = info.Name
	}
	return read()
}

// Next is the first message of a hub's partition that isn't archived.
func Next(ctx context.Context, b store.Bucket, cfg fleetscore.HubConfig, h hub.Hub, partition int) (uint64, error) {
	a := New(cfg, Deps{Hub: h, Store: b})
	at, err := journal.Last[position](ctx, b, a.journalOf(partition))
	if err != nil || at.Hub != h.ID() {
		return 1, err
	}
	return at.Seq + 1, nil
}
