package store

import (
	"context"
	"crypto/rand"

	"github.com/fleetscore/fleetscore"
)

// Probe makes sure that a bucket may be written and keeps its word on IfAbsent,
// which not every server that speaks S3 does: commits rely on it. It leaves
// nothing behind.
func Probe(ctx context.Context, b Bucket) error {
	name := fleetscore.BlobName("_probe/" + rand.Text())
	if err := WriteAll(ctx, b, name, []byte("one"), PutOptions{IfAbsent: true}); err != nil {
		return err
	}
	err := WriteAll(ctx, b, name, []byte("two"), PutOptions{IfAbsent: true})
	if e := b.Delete(ctx, name); e != nil {
		return e
	}
	switch {
	case fleetscore.Conflict.Is(err):
		return nil
	case err != nil:
		return err
	}
	return fleetscore.Errorf(fleetscore.Invalid, "probe store", string(name), "the second of two conditional writes succeeded").
		WithHint("this server doesn't keep conditional writes, so two commits could win; use one that does")
}
