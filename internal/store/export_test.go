package store

import (
	"time"
)

// MaxTries is how often a call to a cloud is tried.
const MaxTries = maxTries

// SetPageSize makes a cloud's listings come in small pages.
func SetPageSize(b Bucket, n int) { cloudOf(b).page = n }

// ShortPauses shortens the pauses between the tries of a call to a cloud.
func ShortPauses(b Bucket) { cloudOf(b).pause = 2 * time.Millisecond }

func cloudOf(b Bucket) *cloud {
	if s, ok := b.(*sub); ok {
		b = s.b
	}
	return b.(*cloud)
}
