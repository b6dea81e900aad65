//go:build noclouds

package store

import (
	"context"

	"github.com/fleetscore/fleetscore"
)

// A build with the tag noclouds has no stores in clouds: their libraries are nearly
// half of all that is compiled, and a first look (make demo) needs none.

func openS3(_ context.Context, a *address) (service, error)    { return withoutClouds("s3", a) }
func openAzure(_ context.Context, a *address) (service, error) { return withoutClouds("azblob", a) }
func openGCS(_ context.Context, a *address) (service, error)   { return withoutClouds("gs", a) }

func withoutClouds(scheme string, a *address) (service, error) {
	return nil, fleetscore.Errorf(fleetscore.Invalid, "open store", scheme+"://"+a.bucket, "this program was built without stores in clouds").
		WithHint("build the whole one: make build")
}
