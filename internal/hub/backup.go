package hub

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// Backup calls fn with the files of a hub's folder, by their names in it, while a server
// may append to the hub and remove what is old. Every message that was acknowledged before
// Backup began is in them. A hub that is opened on a copy of them finds nothing lost, and
// readers of the hub recognise the copy by its epochs. A folder without a hub has no files.
func Backup(ctx context.Context, dir string, fn func(name string, size int64, content io.Reader) error) error {
	const op = "back up hub"
	d := osDisk{}
	data, err := readFile(d, filepath.Join(dir, identityName), identityBytes)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return storageError(op, dir, err)
	}
	id, err := parseIdentity(data)
	if err != nil {
		return fleetscore.Errorf(fleetscore.Corrupt, op, filepath.Join(dir, identityName), "%w", err).
			WithHint("start the server once: it repairs the file")
	}
	if err := fn(identityName, int64(len(data)), bytes.NewReader(data)); err != nil {
		return err
	}
	for i := range id.partitions {
		if err := backupPartition(ctx, d, dir, partitionName(i), fn); err != nil {
			return err
		}
	}
	return nil
}

// looks is how often a partition is looked at again because segments were removed at the
// same time.
const looks = 100

// backupPartition hands out a partition's files. They are opened together, so that the
// server's retention doesn't take a file away that is still to be read.
func backupPartition(ctx context.Context, d disk, dir, name string, fn func(name string, size int64, content io.Reader) error) error {
	const op = "back up hub"
	var files []opened
	var mark []byte
	for try := 1; ; try++ {
		var whole bool
		var err error
		if files, mark, whole, err = openPartition(d, filepath.Join(dir, name)); err != nil {
			return storageError(op, dir, err)
		}
		if whole {
			break
		}
		closeAll(files)
		if try == looks {
			return fleetscore.Errorf(fleetscore.Unavailable, op, filepath.Join(dir, name), "its files change again and again").WithHint("try again later")
		}
	}
	defer closeAll(files)
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return fleetscore.Wrap(op, dir, err)
		}
		if err := fn(name+"/"+f.name, f.size, io.NewSectionReader(f.file, 0, f.size)); err != nil {
			return err
		}
	}
	if mark == nil {
		return nil
	}
	return fn(name+"/"+markName, int64(len(mark)), bytes.NewReader(mark))
}

// opened is a file that is open, and how many of its bytes count.
type opened struct {
	entry
	file file
}

func closeAll(files []opened) {
	for _, f := range files {
		_ = f.file.Close() // it was only read
	}
}

// openPartition opens the segments of a partition. The mark is read before them, so that
// it names no message that they don't hold. whole is false if segments were being removed.
func openPartition(d disk, dir string) (files []opened, mark []byte, whole bool, err error) {
	mark, err = readFile(d, filepath.Join(dir, markName), markBytes)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, false, err
	}
	list, err := d.list(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, false, err
	}
	for _, e := range list {
		if _, ok := parseSegmentName(e.name); !ok || e.dir {
			continue
		}
		f, err := d.open(filepath.Join(dir, e.name), os.O_RDONLY)
		if errors.Is(err, os.ErrNotExist) {
			return files, nil, false, nil
		} else if err != nil {
			closeAll(files)
			return nil, nil, false, err
		}
		files = append(files, opened{e, f})
	}
	after, err := readFile(d, filepath.Join(dir, markName), markBytes)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		closeAll(files)
		return nil, nil, false, err
	}
	if len(mark) < markBytes {
		return files, nil, len(after) < markBytes, nil
	}
	gone := func(b []byte) uint64 { return binary.LittleEndian.Uint64(b[16:]) }
	return files, slices.Clone(mark), len(after) == markBytes && gone(mark) == gone(after), nil
}
