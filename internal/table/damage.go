package table

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// damage is what is wrong with a table, as far as it was noticed.
type damage struct {
	log        string            // why the log can't be read
	past       string            // why a part of the log can't be read again that was read when it was sound
	checkpoint string            // why the last checkpoint can't; the log makes up for it
	files      map[string]string // data files that can't be read
	told       string            // what was reported last
	works      bool
}

// Damage says what is known to be wrong with the table, although it is read: other
// rows than those of the damaged file can be. Empty if nothing is.
func (d *Delta) Damage() string {
	d.damageMu.Lock()
	defer d.damageMu.Unlock()
	if d.damage.works {
		return ""
	}
	return d.damage.told
}

// Name is what messages call the table.
func (d *Delta) Name() string { return d.opt.Name }

// where names a file of the table for people.
func (d *Delta) where(file string) string {
	if d.opt.Folder == "" {
		return file
	}
	return d.opt.Folder + "/" + file
}

// broken is the error for a file of the table that is missing or damaged.
func (d *Delta) broken(file string, why error, hint string) error {
	op := "read"
	if d.opt.Name != "" {
		op = "read " + d.opt.Name + ":"
	}
	var known *fleetscore.Error
	if errors.As(why, &known) && known.Err != nil {
		why = known.Err // the file is named already
	}
	return fleetscore.Errorf(fleetscore.Corrupt, op, d.where(file), "%w", why).WithHint("%s", hint)
}

// damagedLog notes whether the log could be read, and names the table in the error.
func (d *Delta) damagedLog(err error) error {
	if err != nil && !fleetscore.Corrupt.Is(err) {
		return err
	}
	problem := ""
	if err != nil {
		file := "_delta_log"
		var known *fleetscore.Error
		if errors.As(err, &known) {
			file = known.Subject
		}
		err = d.broken(file, err, "restore this file from a backup; without one, move the table's folder away, and it begins anew. Other tables are not affected")
		problem = err.Error()
	}
	d.tell(func(g *damage) {
		g.log = problem
		for name := range g.files {
			if _, ok := d.file[name]; !ok && problem == "" { // replaced meanwhile
				delete(g.files, name)
			}
		}
	})
	return err
}

// damagedFile notes whether a data file could be read.
func (d *Delta) damagedFile(file string, why error) error {
	var err error
	if why != nil {
		d.mu.Lock()
		_, replaced := d.gone[file]
		d.mu.Unlock()
		if replaced {
			return fleetscore.Errorf(fleetscore.Unavailable, "read", d.where(file), "%w", why).WithHint("the file was replaced by a later commit meanwhile: try again")
		}
		err = d.broken(file, why, "restore this file from a backup; only what needs its rows is held up")
	}
	d.tell(func(g *damage) {
		if err == nil {
			delete(g.files, file)
			return
		}
		if g.files == nil {
			g.files = map[string]string{}
		}
		g.files[file] = err.Error()
	})
	return err
}

// Examine reads a data file whole, so that it is reported if it is damaged, and
// taken back as such if it is sound again. A file that isn't visible is left alone.
// If the file belongs to the table's log, the whole log is read.
func (d *Delta) Examine(ctx context.Context, file string) error {
	if strings.HasPrefix(file, "_delta_log/") {
		return d.examineLog(ctx)
	}
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return err
	}
	if f, ok := snap.file(file); ok {
		_, err = d.readFile(ctx, f, snap.Schema.all())
	}
	return err
}

// examineLog reads the log as a process does that has read nothing of it yet: what
// this process remembers hides damage that stops all others, and stops this one after a restart.
func (d *Delta) examineLog(ctx context.Context) error {
	opt := d.opt
	opt.Report = nil
	_, err := OpenTable(d.b, opt).Snapshot(ctx)
	if err != nil && !fleetscore.Corrupt.Is(err) {
		return err
	}
	d.tell(func(g *damage) {
		g.past = ""
		if err != nil {
			g.past = err.Error()
		}
	})
	return err
}

// ExamineDamaged examines the files that were found damaged: an operator may have
// restored them.
func (d *Delta) ExamineDamaged(ctx context.Context) error {
	d.damageMu.Lock()
	files, past := slices.Sorted(maps.Keys(d.damage.files)), d.damage.past
	d.damageMu.Unlock()
	var problems []error
	if past != "" {
		problems = append(problems, d.examineLog(ctx))
	}
	for _, f := range files {
		problems = append(problems, d.Examine(ctx, f))
	}
	return errors.Join(problems...)
}

// tell changes what is known of the damage, and reports it if that is news.
func (d *Delta) tell(change func(*damage)) {
	d.damageMu.Lock()
	defer d.damageMu.Unlock()
	change(&d.damage)
	now, works := cmp.Or(d.damage.log, d.damage.past), false
	if now == "" && len(d.damage.files) > 0 {
		now = d.damage.files[slices.Min(slices.Collect(maps.Keys(d.damage.files)))]
	}
	if now == "" {
		now, works = d.damage.checkpoint, d.damage.checkpoint != ""
	}
	if now == d.damage.told && works == d.damage.works {
		return
	}
	d.damage.told, d.damage.works = now, works
	if d.opt.Report != nil {
		d.opt.Report(now, works)
	}
}

// lock is a mutex that may be held during calls of the store. Waiting for it ends with a
// context, unlike waiting for a sync.Mutex: if the store doesn't answer one caller, another
// caller must not wait longer than its own limit.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

// take waits for the lock until ctx ends.
func (l lock) take(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Lock waits for the lock without a limit, for short work without calls of the store.
func (l lock) Lock() { l <- struct{}{} }

// Unlock releases the lock.
func (l lock) Unlock() { <-l }
