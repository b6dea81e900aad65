package fleet

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/sklearn"
)

// Marks tell whether a file is as it was: a number per member, made of its size
// and of what its store says of its content. They stand beside a generation, not
// in it, because a file that was only touched makes no new generation. Losing
// them costs reading all models once.

const marksMagic = "FSMK"

// readerVersion changes when models are read differently than before, so that packs are
// made anew: with the form of records by itself, else its first number is raised, as the
// class list doesn't say everything.
const readerVersion = 4<<16 | sklearn.RecordVersion

// markOf is never 0.
func markOf(i store.Info) uint64 {
	h := fnv.New64a()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(i.SizeBytes))
	h.Write(b[:])
	if i.ETag != "" {
		h.Write([]byte(i.ETag))
	} else {
		binary.LittleEndian.PutUint64(b[:], uint64(i.Modified.UnixNano()))
		h.Write(b[:])
	}
	return max(1, h.Sum64())
}

func marksName(id fleetscore.GenerationID) fleetscore.BlobName {
	return fleetscore.BlobName(marksArea + string(id))
}

// readMarks gives the marks of an opened pack's members and then of its shared
// models, or nil if they aren't known or were written by another reader of models.
func readMarks(ctx context.Context, b store.Bucket, p *Pack) []uint64 {
	n := p.n
	if p.shared != nil {
		n += p.shared.n
	}
	data, err := store.ReadAll(ctx, b, marksName(p.gen.ID))
	if err != nil || len(data) != 16+8*n || string(data[:4]) != marksMagic ||
		binary.LittleEndian.Uint32(data[8:]) != crc32.Checksum(data[12:], castagnoli) ||
		binary.LittleEndian.Uint32(data[12:]) != readerVersion {
		return nil
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(data[16+8*i:])
	}
	return out
}

func writeMarks(ctx context.Context, b store.Bucket, id fleetscore.GenerationID, marks []uint64) error {
	data := make([]byte, 16, 16+8*len(marks))
	copy(data, marksMagic)
	binary.LittleEndian.PutUint32(data[4:], 1)
	binary.LittleEndian.PutUint32(data[12:], readerVersion)
	for _, m := range marks {
		data = binary.LittleEndian.AppendUint64(data, m)
	}
	binary.LittleEndian.PutUint32(data[8:], crc32.Checksum(data[12:], castagnoli))
	return store.WriteAll(ctx, b, marksName(id), data, store.PutOptions{})
}
