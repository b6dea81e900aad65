package aggregator

import (
	"context"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/table"
)

// schemaOf is the shape of a query's dataset.
func schemaOf(plan *query.Plan) table.TableSchema {
	return table.DatasetSchema(plan.StampName, plan.KeyNames, plan.Values())
}

// Check refuses a query that can't write its dataset, because the dataset has other
// columns, or is written by another query or by uploads, so that there would be two
// rows for one key and time. The kind is Conflict. Check accepts a damaged dataset:
// the query then stops and says so, and everything else goes on.
func Check(ctx context.Context, c *catalog.Catalog, name string, plan *query.Plan) error {
	snap, err := c.Dataset(plan.Into).Snapshot(ctx)
	if fleetscore.NotFound.Is(err) || fleetscore.Corrupt.Is(err) {
		return nil
	} else if err != nil {
		return err
	}
	return owns(snap, name, plan)
}

// owns refuses a dataset that belongs to another writer.
func owns(snap *table.Snapshot, name string, plan *query.Plan) error {
	conflict := func(format string, args ...any) error {
		return fleetscore.Errorf(fleetscore.Conflict, "run query", name, format, args...).
			WithHint("write INTO a dataset of another name; the hub's readings are aggregated again, as far back as hub.retention keeps them")
	}
	if want := schemaOf(plan); !snap.Schema.Equal(want) {
		return conflict("its dataset %s has the columns %s, the query makes %s", plan.Into, snap.Schema, want)
	}
	for id := range snap.Txns {
		if kind, rest, _ := strings.Cut(id, "/"); kind == "query" {
			if writer, _, _ := strings.Cut(rest, "/"); writer != name {
				return conflict("its dataset %s is written by query %s", plan.Into, writer)
			}
		}
	}
	if _, uploads := catalog.Writer(snap); uploads {
		return conflict("its dataset %s holds uploaded rows", plan.Into)
	}
	return nil
}
