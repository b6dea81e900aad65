package simtest

import (
	"testing"

	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

// TestBucket: what the simulation takes for a store behaves like one.
func TestBucket(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Client {
		b := newBucket()
		return func(*testing.T) store.Bucket { return b }
	})
}
