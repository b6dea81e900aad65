package node

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// content is a digest of what the outcomes of a task depend on besides rows and models. It
// has this release in it, as another one may score differently.
func (n *Node) content(l dispatch.Lease) uint64 {
	doc, err := json.Marshal([]any{n.cfg.Hello.Version, l.Interval, l.TimeName, l.KeyNames, l.Features, l.FeaturesBy, l.Runtime, l.Label, l.Missing})
	if err != nil {
		return 0 // the outcomes equal no others
	}
	d := fleetscore.DigestOf(doc)
	return max(1, binary.LittleEndian.Uint64(d[:]))
}

// earlier are the outcomes that stay if nothing has changed. Without them the task takes
// longer, so that they aren't worth an error.
func (n *Node) earlier(ctx context.Context, tables *catalog.Catalog, l dispatch.Lease, out *taskLog) map[fleetscore.Key]fleetscore.Item {
	if len(l.Earlier.Files) == 0 {
		return nil
	}
	items, err := tables.Coverage(l.Pipeline).ReadItems(ctx, l.Earlier.Files, catalog.ItemQuery{Job: l.Earlier.Job, Interval: &l.Interval, Shards: &l.Shards, Outcome: fleetscore.Scored})
	if err != nil {
		out.printf("all sensors are scored, as the outcomes of job %s can't be read: %v", l.Earlier.Job, err)
		return nil
	}
	known := make(map[fleetscore.Key]fleetscore.Item, len(items))
	for _, i := range items {
		i.Kept = cmp.Or(i.Kept, i.Job)
		known[i.Key] = i.Item
	}
	return known
}
