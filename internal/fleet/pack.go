package fleet

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Generation is a fleet as it was at one time: it never changes.
type Generation struct {
	ID        fleetscore.GenerationID  `json:"id"`
	Fleet     string                   `json:"fleet"`
	Template  string                   `json:"template"`
	KeyNames  []string                 `json:"key_names"`
	Members   int64                    `json:"members"`
	ShardKeys [fleetscore.Shards]int64 `json:"shard_keys"` // expected keys per shard
	Ignored   []string                 `json:"ignored"`    // names of files that belong to no key; the first 100
	Created   time.Time                `json:"created"`
}

// segments is how many files a pack has: a task of a large fleet reads a few
// whole ones.
const segments = 8

const packArea = "_pack/"

func packName(fleetName string, id fleetscore.GenerationID, file string) fleetscore.BlobName {
	return fleetscore.BlobName("models/" + fleetName + "/" + packArea + string(id) + "/" + file)
}

func currentName(fleetName string) fleetscore.BlobName {
	return fleetscore.BlobName("models/" + fleetName + "/" + packArea + "current.json")
}

// Current is a fleet's newest generation; kind NotFound before the first Sync.
func Current(ctx context.Context, b store.Bucket, fleetName string) (*Generation, error) {
	var c struct {
		ID fleetscore.GenerationID `json:"id"`
	}
	if err := readJSON(ctx, b, currentName(fleetName), &c); err != nil {
		return nil, err
	}
	return Load(ctx, b, fleetName, c.ID)
}

// Load reads what a generation is.
func Load(ctx context.Context, b store.Bucket, fleetName string, id fleetscore.GenerationID) (*Generation, error) {
	g := &Generation{}
	return g, readJSON(ctx, b, packName(fleetName, id, "generation.json"), g)
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

// Sync brings the fleet's current generation up to date with the models' folder,
// and reports whether that made a new one. The folder is listed; models are read
// only if a name, size or modification changed since. The pack's segments are
// written first, generation.json after them, the pointer to it last: a crash
// leaves the old generation current.
func Sync(ctx context.Context, src, dst store.Bucket, fleetName string, t Template) (*Generation, bool, error) {
	folder, err := Scan(ctx, src, t)
	if err != nil {
		return nil, false, err
	}
	g := folder.generation(fleetName, t)
	was, err := Current(ctx, dst, fleetName)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, false, err
	}
	if err == nil && was.ID == g.ID {
		return was, false, nil
	}
	old, err := Load(ctx, dst, fleetName, g.ID)
	switch {
	case err == nil:
		g = old
	case fleetscore.NotFound.Is(err):
		g.Created = time.Now().UTC()
		if err := folder.writePack(ctx, dst, g); err != nil {
			return nil, false, err
		}
	default:
		return nil, false, err
	}
	return g, true, writeJSON(ctx, dst, currentName(fleetName), map[string]any{"id": g.ID})
}

// generation describes the folder; its id is a digest of template, keys, names,
// sizes and modifications.
func (f *Folder) generation(fleetName string, t Template) *Generation {
	g := &Generation{Fleet: fleetName, Template: t.String(), KeyNames: t.KeyNames(), Members: int64(len(f.members)),
		Ignored: f.Ignored[:min(len(f.Ignored), 100)]}
	h := sha256.New()
	fmt.Fprintf(h, "1\n%q %q\n", t.String(), t.KeyNames())
	for _, m := range f.members {
		g.ShardKeys[m.Key.Shard()]++
		fmt.Fprintf(h, "%q %q %d %q\n", m.Key, m.Name, m.SizeBytes, m.ETag)
	}
	g.ID = fleetscore.GenerationID(hex.EncodeToString(h.Sum(nil)[:8]))
	return g
}

// entry is one line of a segment's index. docs/formats/pack.md describes it.
type entry struct {
	Key       fleetscore.Key    `json:"key"`
	Name      string            `json:"name"`
	Offset    int64             `json:"offset"`
	SizeBytes int64             `json:"size_bytes"`
	Digest    fleetscore.Digest `json:"digest"`
	Error     string            `json:"error,omitempty"` // why the model could not be taken
}

func (f *Folder) writePack(ctx context.Context, dst store.Bucket, g *Generation) error {
	for _, r := range fleetscore.SplitShards(segments) {
		lo, _ := slices.BinarySearchFunc(f.members, r.First, func(m Member, s fleetscore.Shard) int { return cmp.Compare(m.Key.Shard(), s) })
		hi := lo
		for hi < len(f.members) && r.Contains(f.members[hi].Key.Shard()) {
			hi++
		}
		if err := f.writeSegment(ctx, dst, g, r, f.members[lo:hi]); err != nil {
			return err
		}
	}
	return writeJSON(ctx, dst, packName(g.Fleet, g.ID, "generation.json"), g)
}

func (f *Folder) writeSegment(ctx context.Context, dst store.Bucket, g *Generation, r fleetscore.ShardRange, members []Member) error {
	var index bytes.Buffer
	enc := json.NewEncoder(&index)
	pr, pw := io.Pipe()
	copied := make(chan error, 1)
	go func() {
		var offset int64
		for _, m := range members {
			e := entry{Key: m.Key, Name: m.Name, Offset: offset}
			data, digest, err := f.Model(ctx, m.Key)
			switch {
			case fleetscore.Invalid.Is(err):
				e.Error = err.Error() // costs its own sensor, not the fleet
			case err != nil:
				copied <- pw.CloseWithError(err)
				return
			default:
				e.SizeBytes, e.Digest = int64(len(data)), digest
				offset += e.SizeBytes
			}
			if err := enc.Encode(e); err != nil {
				copied <- pw.CloseWithError(err)
				return
			}
			if _, err := pw.Write(data); err != nil {
				copied <- nil // Put failed, and says why
				return
			}
		}
		copied <- pw.Close()
	}()
	_, err := dst.Put(ctx, packName(g.Fleet, g.ID, r.String()+".models"), pr, store.PutOptions{})
	pr.CloseWithError(io.ErrClosedPipe)
	<-copied
	if err != nil {
		return err
	}
	return store.WriteAll(ctx, dst, packName(g.Fleet, g.ID, r.String()+".index"), index.Bytes(), store.PutOptions{})
}

// Pack is the models of a shard range of one generation.
type Pack struct {
	b       store.Bucket
	entries map[fleetscore.Key]placed
	keys    []fleetscore.Key
	data    map[fleetscore.BlobName]piece
}

type placed struct {
	entry
	file fleetscore.BlobName
}

// piece is the part of a segment that a pack needs, read at once.
type piece struct {
	offset int64
	bytes  []byte
}

// maxPieceBytes is up to which size the models of a pack are read in one piece
// and held in memory; larger packs are read model by model.
const maxPieceBytes = 256 << 20

// OpenPack reads the index and, if they are small enough to hold, the models of
// the shards.
func OpenPack(ctx context.Context, b store.Bucket, fleetName string, id fleetscore.GenerationID, shards fleetscore.ShardRange) (*Pack, error) {
	p := &Pack{b: b, entries: map[fleetscore.Key]placed{}, data: map[fleetscore.BlobName]piece{}}
	for _, r := range fleetscore.SplitShards(segments) {
		if !r.Overlaps(shards) {
			continue
		}
		if err := p.open(ctx, packName(fleetName, id, r.String()), shards); err != nil {
			return nil, err
		}
	}
	slices.Sort(p.keys)
	return p, nil
}

func (p *Pack) open(ctx context.Context, segment fleetscore.BlobName, shards fleetscore.ShardRange) error {
	in, err := p.b.Get(ctx, segment+".index", 0, -1)
	if err != nil {
		return err
	}
	defer in.Close()
	file := segment + ".models"
	from, to := int64(-1), int64(0)
	dec := json.NewDecoder(bufio.NewReaderSize(in, 1<<20))
	for dec.More() {
		var e entry
		if err := dec.Decode(&e); err != nil {
			return fleetscore.Errorf(fleetscore.Corrupt, "read pack", string(segment)+".index", "%w", err)
		}
		if !shards.Contains(e.Key.Shard()) {
			continue
		}
		p.entries[e.Key] = placed{e, file}
		p.keys = append(p.keys, e.Key)
		if from < 0 {
			from = e.Offset
		}
		to = e.Offset + e.SizeBytes
	}
	if from < 0 || to == from || to-from > maxPieceBytes {
		return nil
	}
	data, err := p.read(ctx, file, from, to-from)
	if err == nil {
		p.data[file] = piece{from, data}
	}
	return err
}

func (p *Pack) read(ctx context.Context, file fleetscore.BlobName, offset, length int64) ([]byte, error) {
	in, err := p.b.Get(ctx, file, offset, length)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(in)
	if err == nil && int64(len(data)) != length {
		err = fleetscore.Errorf(fleetscore.Corrupt, "read pack", string(file), "%d bytes at %d are there, the index says %d", len(data), offset, length)
	}
	return data, fleetscore.Wrap("read pack", string(file), err)
}

// Keys are the expected keys of the shards, sorted.
func (p *Pack) Keys() []fleetscore.Key { return p.keys }

// Model returns a key's model, which must not be changed; kind NotFound if it has
// none, Corrupt if the bytes aren't those that were packed.
func (p *Pack) Model(ctx context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error) {
	e, ok := p.entries[k]
	if !ok {
		return nil, fleetscore.Digest{}, noModel(k)
	}
	if e.Error != "" {
		return nil, fleetscore.Digest{}, fleetscore.Errorf(fleetscore.Invalid, "read model", e.Name, "%s", e.Error)
	}
	var data []byte
	if d, ok := p.data[e.file]; ok {
		at := e.Offset - d.offset
		data = d.bytes[at : at+e.SizeBytes : at+e.SizeBytes]
	} else {
		var err error
		if data, err = p.read(ctx, e.file, e.Offset, e.SizeBytes); err != nil {
			return nil, fleetscore.Digest{}, err
		}
	}
	if fleetscore.DigestOf(data) != e.Digest {
		return nil, fleetscore.Digest{}, fleetscore.Errorf(fleetscore.Corrupt, "read model", e.Name, "its bytes in %s don't match their digest", e.file).
			WithHint("remove the generation's folder and sync the fleet again")
	}
	return data, e.Digest, nil
}
