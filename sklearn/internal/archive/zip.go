package archive

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

const (
	maxEntries = 1 << 20
	// entryBytes is the least that package zip allocates for an entry.
	entryBytes = 512
	zipEnd     = "PK\x05\x06"
)

// entries counts a zip archive's entries by their headers in the archive's directory,
// because package zip allocates memory for all of them when it opens an archive.
func entries(data []byte) int {
	end := bytes.LastIndex(data, []byte(zipEnd))
	if end < 0 {
		return 0
	}
	return bytes.Count(data, []byte("PK\x01\x02"))
}

// damagedZip returns the refusal of an archive that can't be opened.
func damagedZip(data []byte, err error) error {
	if end := bytes.LastIndex(data, []byte(zipEnd)); end < 0 || len(data)-end < 22 || len(data)-end < 22+int(binary.LittleEndian.Uint16(data[end+20:])) {
		return refusal.New(refusal.Cut, "the zip archive is cut off: the end is missing").
			WithHint("copy the file again, or write the model again")
	}
	return damaged("zip", err)
}

// noSkops returns the refusal of an archive that skops didn't write.
func (s *skops) noSkops(err error) error {
	if late := s.budget.Err(); late != nil {
		return late
	}
	for name := range s.files {
		library, way := "", ""
		switch {
		case strings.HasSuffix(name, "/data.pkl") || name == "data.pkl":
			library, way = "torch", "score it as ONNX, in Python with the runtime auto (docs/python.md)"
		case name == "model.weights.h5":
			library, way = "keras", "score it as ONNX, in Python with the runtime auto (docs/python.md)"
		default:
			continue
		}
		return refusal.Of(refusal.Refusal{Reason: refusal.Library, Class: library}, "the file is a model of the library %s, which is not supported", library).WithHint("%s", way)
	}
	return refusal.New(refusal.NotModel, "skops didn't write this zip archive: %w", err).
		WithHint("write the model with skops.io.dump, pickle.dump or joblib.dump")
}
