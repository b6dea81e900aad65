package fleet

import (
	"bytes"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/fleetscore/fleetscore/internal/durable"
)

// Memory limits the memory that all syncs together use for models at a time. The limit
// doesn't depend on the number of fleets or the content of files: a compressed file of
// 8 KB can become a record of 8 MB. It is safe for concurrent use.
//
// Besides, each core takes up to lanes times freeLoad and spillAt.
type Memory struct {
	loading *semaphore.Weighted // bytes that models take while they are read and compiled
	held    *semaphore.Weighted // bytes of files that segments in the making hold
}

// NewMemory is what the syncs of one process share.
func NewMemory() *Memory {
	return &Memory{loading: semaphore.NewWeighted(loadedAtOnce), held: semaphore.NewWeighted(heldAtOnce)}
}

const (
	loadedAtOnce = 512 << 20 // bytes that models take together while they are compiled, if none takes more
	heldAtOnce   = 512 << 20 // bytes of models that segments in the making hold together, if none is larger

	// Files from largeModel on are charged to loadedAtOnce from the start, with
	// loadTimes their size: the file, four times its size while it is loaded, its
	// record.
	largeModel = 1 << 20
	loadTimes  = 6

	// freeLoad is what loading a smaller file may take without a charge. One that
	// needs more, because it is compressed, is loaded again with a charge for all
	// that its contents can be.
	freeLoad = 4 << 20

	// spillAt is from how many bytes on the records that a lane made go to a file
	// until their segment is written.
	spillAt = 4 << 20
)

// mostLoaded is what loading a file that may be compressed takes at most: its
// contents are 16 MiB or 100 times as large, at most 1 GiB (package sklearn), and are
// held as four times their size and as a record.
func mostLoaded(size int64) int64 {
	contents := min(max(16<<20, 100*size), 1<<30)
	return size + (loadTimes-1)*contents
}

// body is a model's record or file that is to be written into a segment: in memory,
// or in a file.
type body struct {
	data []byte
	file io.ReaderAt // nil if it is in memory
	at   int64
	size int
}

func inMemory(data []byte) body { return body{data: data, size: len(data)} }

func (b body) reader() io.Reader {
	if b.file == nil {
		return bytes.NewReader(b.data)
	}
	return io.NewSectionReader(b.file, b.at, int64(b.size))
}

// spill is a file for bodies that memory has no room for. It is made when the first
// bytes come.
type spill struct {
	dir string

	mu   sync.Mutex // guards what follows
	file *os.File
	size int64
}

// add keeps the bytes and says where.
func (s *spill) add(data []byte) (file io.ReaderAt, at int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		f, err := durable.Scratch(s.dir)
		if err != nil {
			return nil, 0, err
		}
		s.file = f
	}
	at = s.size
	n, err := s.file.WriteAt(data, at)
	s.size += int64(n)
	return s.file, at, err
}

func (s *spill) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
