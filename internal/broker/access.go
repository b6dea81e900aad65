package broker

import (
	"context"
	"path"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
)

// Access refuses blobs that the task of a lease doesn't need. It reads its
// dataset, its fleet's packs and its pipeline's results, and writes its job's
// files there, but no log of a table. Kind Conflict if the attempt has ended.
func (b *Broker) Access(ctx context.Context, lease fleetscore.LeaseID, name string, write bool) error {
	op := "read blob"
	if write {
		op = "write blob"
	}
	a, id, err := b.ledger.Attempt(ctx, lease)
	if err != nil {
		return err
	}
	if a.Ended != nil {
		return fleetscore.Errorf(fleetscore.Conflict, op, name, "attempt %d ended: %s", a.Number, a.State)
	}
	j, err := b.ledger.Job(ctx, id)
	if err != nil {
		return err
	}
	folders := []string{catalog.PredictionsFolder(j.Pipeline)}
	if !write {
		folders = append(folders, catalog.DatasetFolder(j.Config.Dataset), catalog.PackFolder(j.Config.Fleet))
	}
	for _, f := range folders {
		if strings.HasPrefix(name, f+"/") && (!write || strings.HasPrefix(path.Base(name), string(id)+"-") && !catalog.InTableLog(fleetscore.BlobName(name))) {
			return nil
		}
	}
	if write && (catalog.IsTiming(name, j.Pipeline, id) || catalog.IsOutput(name, j.Pipeline, id)) {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Invalid, op, name, "it isn't among the task's inputs and outputs")
}
