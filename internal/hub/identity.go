package hub

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
)

// identity is what the file of that name says: which hub this is, and how many
// partitions it has. It is written once, when the folder is made.
type identity struct {
	hub        int64
	partitions int
}

const (
	identityName  = "identity"
	identityBytes = 256
)

func (id identity) encode() []byte {
	text := fmt.Sprintf("fleetscore hub log 1\nhub %016x\npartitions %d\n", id.hub, id.partitions)
	return fmt.Appendf(nil, "%schecksum %08x\n", text, crc32.Checksum([]byte(text), castagnoli))
}

func parseIdentity(data []byte) (id identity, err error) {
	var sum uint32
	if _, err := fmt.Sscanf(string(data), "fleetscore hub log 1\nhub %x\npartitions %d\nchecksum %x\n", &id.hub, &id.partitions, &sum); err != nil {
		return identity{}, fmt.Errorf("it isn't a hub's identity: %w", err)
	}
	if string(id.encode()) != string(data) {
		return identity{}, errors.New("its checksum is wrong")
	}
	return id, nil
}

// newID is a random identifier above 0.
func newID() int64 { return rand.Int64N(1<<63-1) + 1 }

func partitionName(i int) string { return fmt.Sprintf("p%03d", i) }

// identify finds out which hub the folder holds, and makes one if it holds none. A
// lost or damaged identity is taken from the segments.
func (h *segmentLog) identify() error {
	name := filepath.Join(h.cfg.Dir, identityName)
	data, err := readFile(h.disk, name, identityBytes)
	if err == nil {
		var id identity
		if id, err = parseIdentity(data); err == nil {
			h.hub = id.hub
			return h.checkPartitions(id.partitions)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return storageError("open hub", h.cfg.Dir, err)
	}
	there, found := h.partitionsThere(), false
	for i := range there {
		if list, lerr := h.segments(i); lerr == nil {
			for _, s := range list {
				if s.hub != 0 {
					h.hub, found = s.hub, true
				}
			}
		}
	}
	if !found {
		h.hub = newID()
	}
	if found || len(data) > 0 {
		h.damageText("the hub's identity was lost or damaged (%v); it was made anew from the segments", err)
	}
	if err := h.checkPartitions(there); err != nil {
		return err
	}
	return h.writeIdentity()
}

// writeIdentity makes the partitions' folders and then the identity: where the
// identity is there and a folder isn't, the folder was lost.
func (h *segmentLog) writeIdentity() error {
	for i := range h.cfg.Partitions {
		if err := makeDir(h.disk, filepath.Join(h.cfg.Dir, partitionName(i))); err != nil {
			return storageError("open hub", h.cfg.Dir, err)
		}
	}
	err := h.disk.SyncDir(h.cfg.Dir)
	if err == nil {
		err = durable.WriteFileOn(h.disk, filepath.Join(h.cfg.Dir, identityName), identity{h.hub, h.cfg.Partitions}.encode(), 0o600)
	}
	if err != nil {
		return storageError("open hub", h.cfg.Dir, err)
	}
	return nil
}

// partitionsThere is how many partitions have a folder, counted to the last one.
func (h *segmentLog) partitionsThere() (n int) {
	list, err := h.disk.list(h.cfg.Dir)
	if err != nil {
		return 0
	}
	for _, e := range list {
		if digits, ok := strings.CutPrefix(e.name, "p"); ok && e.dir && len(digits) == 3 {
			if i, err := strconv.Atoi(digits); err == nil {
				n = max(n, i+1)
			}
		}
	}
	return n
}

// checkPartitions refuses another number of partitions than the folder has, unless
// nothing was ever stored: then it takes the new number.
func (h *segmentLog) checkPartitions(have int) error {
	if have == h.cfg.Partitions || have == 0 {
		return nil
	}
	for i := range max(have, h.cfg.Partitions) {
		p := h.newPartition(i)
		list, err := h.segments(i)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return storageError("open hub", h.cfg.Dir, err)
		}
		if _, _, marked := p.readMark(); len(list) > 0 || marked {
			return fleetscore.Errorf(fleetscore.Conflict, "open hub", h.cfg.Dir, "it holds readings in %d partitions, not %d", have, h.cfg.Partitions).
				WithHint("set hub.partitions back to %d; or start with an empty folder: readings not yet in a dataset would have to be sent again", have)
		}
	}
	for i := h.cfg.Partitions; i < have; i++ { // empty
		if err := h.disk.Remove(filepath.Join(h.cfg.Dir, partitionName(i))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return storageError("open hub", h.cfg.Dir, err)
		}
	}
	return h.writeIdentity()
}

// segments lists a partition's segments with what their headers say.
func (h *segmentLog) segments(partition int) ([]segment, error) {
	dir := filepath.Join(h.cfg.Dir, partitionName(partition))
	list, err := h.disk.list(dir)
	if err != nil {
		return nil, err
	}
	var out []segment
	for _, e := range list {
		if first, ok := parseSegmentName(e.name); ok && !e.dir {
			s := segment{first: first, end: e.size}
			if err := h.readHeader(partition, filepath.Join(dir, e.name), &s); err != nil {
				return nil, err
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// readHeader fills in what a segment's header says. Where that is damaged, the first
// sound record says whose segment it is.
func (h *segmentLog) readHeader(partition int, name string, s *segment) error {
	f, err := h.disk.open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, segmentHeader)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	err = s.parseHeader(head[:n], partition)
	if err == nil || s.end <= segmentHeader { // a crash while it was made left nothing in it
		return nil
	}
	c := &cursor{f: f, offset: segmentHeader, end: s.end}
	r, rerr := c.next()
	if rerr != nil && !errors.Is(rerr, io.EOF) {
		return rerr
	}
	s.epoch = r.epoch
	h.damageText("partition %d: the beginning of the file %s is damaged (%v); its messages are read one by one", partition, filepath.Base(name), err)
	return nil
}
