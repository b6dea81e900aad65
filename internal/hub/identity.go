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

// identity is the content of the file with that name: which hub this is, and how many
// partitions the hub has. It is written once, when the folder is made.
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
		return identity{}, fmt.Errorf("the file doesn't hold a hub's identity: %w", err)
	}
	if string(id.encode()) != string(data) {
		return identity{}, errors.New("the checksum is wrong")
	}
	return id, nil
}

// newID returns a random identifier above 0.
func newID() int64 { return rand.Int64N(1<<63-1) + 1 }

func partitionName(i int) string { return fmt.Sprintf("p%03d", i) }

// identify finds out which hub the folder holds, and makes a hub if there is none. A
// lost or damaged identity is rebuilt from the segments.
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
		h.damageText("the hub's identity was lost or damaged (%v); it was rebuilt from the segments", err)
	}
	if err := h.checkPartitions(there); err != nil {
		return err
	}
	return h.writeIdentity()
}

// writeIdentity makes the partitions' folders first and the identity last. So if the
// identity exists and a folder doesn't, the folder was lost.
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

// partitionsThere returns the highest partition that has a folder, plus one.
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

// checkPartitions refuses a number of partitions that differs from the folder's. If
// nothing was ever stored, the new number is taken.
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
			return fleetscore.Errorf(fleetscore.Conflict, "open hub", h.cfg.Dir, "the hub holds readings in %s, not %d", fleetscore.Counted(have, "partition"), h.cfg.Partitions).
				WithHint("set hub.partitions back to %d, or start with an empty folder; readings that are not yet in a dataset must then be sent again", have)
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

// readHeader fills in what a segment's header says. If the header is damaged, the hub
// and epoch are taken from the first intact record.
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
	if err == nil || s.end <= segmentHeader { // a crash during its creation left the segment empty
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
