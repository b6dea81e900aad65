package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Generation is a fleet as it was at one time: it never changes.
type Generation struct {
	ID        fleetscore.GenerationID  `json:"id"` // of all that follows but Since and Created
	Fleet     string                   `json:"fleet"`
	Template  string                   `json:"template,omitempty"`
	Sensors   string                   `json:"sensors,omitempty"` // the list of expected sensors
	KeyNames  []string                 `json:"key_names"`
	Originals bool                     `json:"originals,omitempty"` // the files of all models are in it
	Members   int64                    `json:"members"`
	ShardKeys [fleetscore.Shards]int64 `json:"shard_keys"` // expected keys per shard
	Segments  []Segment                `json:"segments"`   // by shards; ranges without keys are left out
	Shared    *Segment                 `json:"shared,omitempty"`
	Ignored   []string                 `json:"ignored"` // names of files that belong to no key; the first 100
	Health    Diagnosis                `json:"health"`
	Since     Difference               `json:"since"`
	Created   time.Time                `json:"created"`
}

// Difference is in what a generation differs from the one that was current when it
// was made.
type Difference struct {
	Generation fleetscore.GenerationID `json:"generation,omitempty"` // that one; empty for the first
	Added      int64                   `json:"added"`                // keys
	Changed    int64                   `json:"changed"`              // keys whose model's file has another content
	Removed    int64                   `json:"removed"`              // keys
}

// Segment is a file of a pack, which several generations may share.
type Segment struct {
	Digest     fleetscore.Digest     `json:"digest"` // of the file, and its name
	Shards     fleetscore.ShardRange `json:"shards"`
	Keys       int64                 `json:"keys"`
	SizeBytes  int64                 `json:"size_bytes"`
	IndexBytes int64                 `json:"index_bytes"` // of that, header and index
}

// files are the segments, the shared one too.
func (g *Generation) files() []Segment {
	if g.Shared == nil {
		return g.Segments
	}
	return append(slices.Clone(g.Segments), *g.Shared)
}

// SizeBytes is how large the generation's segments are together.
func (g *Generation) SizeBytes() (n int64) {
	for _, s := range g.files() {
		n += s.SizeBytes
	}
	return n
}

const (
	// ModelsArea is the prefix of the folders of the store that hold models.
	ModelsArea = "models/"
	// PackName is the name of the folder among the models where their packs lie.
	PackName = "_pack"
)

// PackPath is the name of the folder of the store where a fleet's packs lie.
func PackPath(fleetName string) string { return ModelsArea + fleetName + "/" + PackName }

// PackFolder is the folder of the store where a fleet's packs lie.
func PackFolder(b store.Bucket, fleetName string) store.Bucket {
	return store.Sub(b, PackPath(fleetName))
}

// SegmentOf gives the digest of what a blob of the store holds, if the blob is a segment of a
// pack, which never changes.
func SegmentOf(name fleetscore.BlobName) (d fleetscore.Digest, is bool) {
	before, file, _ := strings.Cut(string(name), "/"+PackName+"/"+segmentArea)
	text, is := strings.CutSuffix(file, ".pack")
	is = is && strings.HasPrefix(before, ModelsArea) && text != "" && d.UnmarshalText([]byte(text)) == nil
	return d, is
}

// What lies in a pack's folder.
const (
	currentName    = fleetscore.BlobName("current.json")
	generationArea = "generations/"
	marksArea      = "marks/"
	segmentArea    = "segments/"
)

func generationName(id fleetscore.GenerationID) fleetscore.BlobName {
	return fleetscore.BlobName(generationArea + string(id) + ".json")
}

func segmentName(d fleetscore.Digest) fleetscore.BlobName {
	return fleetscore.BlobName(segmentArea + d.String() + ".pack")
}

// pointer is current.json: it names the newest generation.
type pointer struct {
	Pack int                     `json:"pack"` // version of the format, 2
	ID   fleetscore.GenerationID `json:"id"`
}

// Current is a fleet's newest generation; kind NotFound before the first Sync.
func Current(ctx context.Context, b store.Bucket, fleetName string) (*Generation, error) {
	return current(ctx, PackFolder(b, fleetName))
}

// Page gives the members of a generation from a number on, at most limit that fit, and the
// number of the next one; 0 at the end. It reads no models.
func Page(ctx context.Context, b store.Bucket, g *Generation, from, limit int, fits func(Entry) bool) (out []Entry, next int, err error) {
	p, err := openPack(ctx, PackFolder(b, g.Fleet), g, fleetscore.AllShards, 0)
	if err != nil {
		return nil, 0, err
	}
	for i := max(0, from); i < p.Len(); i++ {
		e := p.At(i)
		if !fits(e) {
			continue
		}
		if len(out) == limit {
			return out, i, p.Close()
		}
		out = append(out, e)
	}
	return out, 0, p.Close()
}

// Releases gives the members of a generation that Python or a command scores where the
// pipeline's runtime is use, and the release of scikit-learn that each was made with; empty where
// the file doesn't say. It reads no models.
func Releases(ctx context.Context, b store.Bucket, g *Generation, use fleetscore.RuntimeName) (map[fleetscore.Key]string, error) {
	p, err := openPack(ctx, PackFolder(b, g.Fleet), g, fleetscore.AllShards, 0)
	if err != nil {
		return nil, err
	}
	out := map[fleetscore.Key]string{}
	for _, e := range p.All() {
		if c := e.Choose(use); c.Runtime != "" && c.Runtime != fleetscore.RuntimeNative {
			out[e.Key] = e.release()
		}
	}
	return out, p.Close()
}

// release is the release of scikit-learn that a model was made with; empty if its file doesn't
// say.
func (e *Entry) release() string {
	text := strings.TrimPrefix(e.Made, "scikit-learn ")
	switch {
	case e.Flags&Native != 0:
		text = kindOf(e.Detail).Releases
	case text == e.Made:
		return ""
	}
	first, _, _ := strings.Cut(text, ",")
	return first
}

// Load reads what a generation is.
func Load(ctx context.Context, b store.Bucket, fleetName string, id fleetscore.GenerationID) (*Generation, error) {
	return loadGeneration(ctx, PackFolder(b, fleetName), id)
}

func current(ctx context.Context, pack store.Bucket) (*Generation, error) {
	var p pointer
	if err := readJSON(ctx, pack, currentName, &p); err != nil {
		return nil, err
	}
	if p.Pack != segmentVersion {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "read pack", string(currentName), "it has version %d, this release reads %d", p.Pack, segmentVersion).
			WithHint("pack the fleet again; a server does so by itself")
	}
	return loadGeneration(ctx, pack, p.ID)
}

func loadGeneration(ctx context.Context, pack store.Bucket, id fleetscore.GenerationID) (*Generation, error) {
	g := &Generation{}
	return g, readJSON(ctx, pack, generationName(id), g)
}

func readJSON(ctx context.Context, b store.Bucket, name fleetscore.BlobName, v any) error {
	data, err := store.ReadAll(ctx, b, name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fleetscore.Errorf(fleetscore.Corrupt, "read", string(name), "%w", err)
	}
	return nil
}

func writeJSON(ctx context.Context, b store.Bucket, name fleetscore.BlobName, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return store.WriteAll(ctx, b, name, append(data, '\n'), store.PutOptions{})
}

// identify sets the generation's id.
func (g *Generation) identify() error {
	c := *g
	c.ID, c.Since, c.Created = "", Difference{}, time.Time{}
	data, err := json.Marshal(&c)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	g.ID = fleetscore.GenerationID(hex.EncodeToString(sum[:8]))
	return nil
}
