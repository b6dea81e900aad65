package catalog

import (
	"context"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

// uploadedUntil is the txn entry of a dataset's table that says how far its uploads
// are complete.
const uploadedUntil = "upload/complete_until"

// Writer says who writes a dataset: the name of a query, or true if rows were
// uploaded. A dataset has writers of one sort only, as each counts on the rows
// being its own: a query on what it wrote before, an upload on replacing rows.
func Writer(snap *table.Snapshot) (query string, uploads bool) {
	for id := range snap.Txns {
		switch kind, rest, _ := strings.Cut(id, "/"); kind {
		case "query":
			if name, _, _ := strings.Cut(rest, "/"); query == "" || name < query {
				query = name
			}
		case "upload":
			uploads = true
		}
	}
	return query, uploads
}

// Uploaded says what an upload did.
type Uploaded struct {
	table.Upserted
	CompleteUntil fleetscore.Micros
}

// Upload puts rows into a dataset, which is made if absent, by one commit. A
// dataset has one row per key and time: a row of a later upload takes the place of
// an earlier one's, and within an upload the last one counts. Rows that are there
// already change nothing, so an upload may be repeated.
//
// The dataset is complete until the given time, or else until the last row; that
// never moves back. Kind Conflict if a query writes or wrote the dataset, or if it
// has other columns.
func (c *Catalog) Upload(ctx context.Context, dataset string, rows *fleetscore.Rows, complete *fleetscore.Micros) (Uploaded, error) {
	const op = "upload rows to dataset"
	if rows.Len() == 0 {
		return Uploaded{}, fleetscore.Errorf(fleetscore.Invalid, op, dataset, "there are no rows")
	}
	until := slices.Max(rows.Times)
	if complete != nil {
		until = *complete
	}
	d := c.Dataset(dataset)
	if err := d.Create(ctx, table.DatasetSchema(rows.TimeName, rows.KeyNames, rows.ValueNames)); err != nil {
		return Uploaded{}, fleetscore.Wrap(op, dataset, err)
	}
	var out Uploaded
	done, err := d.Upsert(ctx, rows, func(snap *table.Snapshot) (table.Commit, error) {
		commit := table.Commit{Operation: "MERGE", Txns: map[string]int64{}}
		if query, _ := Writer(snap); query != "" {
			return commit, fleetscore.Errorf(fleetscore.Conflict, op, dataset, "its rows come from query %s", query).
				WithHint("upload under another name, and let a pipeline score that")
		}
		before, ok := snap.Txns[uploadedUntil]
		out.CompleteUntil = fleetscore.Micros(before)
		if !ok || int64(until) > before {
			commit.Txns[uploadedUntil] = int64(until)
			out.CompleteUntil = until
		}
		return commit, nil
	})
	out.Upserted = done
	return out, err
}
