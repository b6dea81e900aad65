package dispatch

import (
	"context"

	"github.com/fleetscore/fleetscore"
)

type leaseKey struct{}

// WithLease says which lease the work of a context belongs to. A node sends the lease
// when it asks the server for blobs.
func WithLease(ctx context.Context, id fleetscore.LeaseID) context.Context {
	return context.WithValue(ctx, leaseKey{}, id)
}

// LeaseOf is the lease of a context's work; empty if there is none.
func LeaseOf(ctx context.Context) fleetscore.LeaseID {
	id, _ := ctx.Value(leaseKey{}).(fleetscore.LeaseID)
	return id
}
