package fleet

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Ref names a generation of a fleet; without a generation the current one.
type Ref struct {
	Fleet      string                  `json:"fleet"`
	Generation fleetscore.GenerationID `json:"generation"`
}

// String is FLEET@GENERATION.
func (r Ref) String() string {
	if r.Generation == "" {
		return r.Fleet
	}
	return r.Fleet + "@" + string(r.Generation)
}

// ModelOf describes a sensor's model.
type ModelOf struct {
	File       string            `json:"file,omitempty" doc:"empty if the sensor has no model"`
	Digest     fleetscore.Digest `json:"digest,omitzero" doc:"of the file"`
	Estimators string            `json:"estimators,omitempty" doc:"the model's classes, outermost first"`
	Releases   string            `json:"releases,omitempty" doc:"the releases of scikit-learn that wrote it"`
	Features   int               `json:"features,omitempty"`
	Problem    string            `json:"problem,omitempty" doc:"why it isn't scored natively"`
}

// MemberChange is a sensor in which two generations differ.
type MemberChange struct {
	Key fleetscore.Key `json:"key"`
	A   *ModelOf       `json:"a,omitempty" doc:"absent if the sensor is only in B"`
	B   *ModelOf       `json:"b,omitempty" doc:"absent if the sensor is only in A"`
}

// What says in a word or two in what the sensor differs.
func (c MemberChange) What() string {
	switch {
	case c.A == nil:
		return "added"
	case c.B == nil:
		return "removed"
	}
	var what []string
	if c.A.Estimators != c.B.Estimators || (c.A.File == "") != (c.B.File == "") {
		what = append(what, "class")
	}
	if c.A.Releases != c.B.Releases && c.A.Releases != "" && c.B.Releases != "" {
		what = append(what, "release")
	}
	return strings.Join(append(what, "content"), ", ")
}

// Changes counts in what two generations differ.
type Changes struct {
	A        Ref   `json:"a"`
	B        Ref   `json:"b"`
	MembersA int64 `json:"members_a"`
	MembersB int64 `json:"members_b"`
	Added    int64 `json:"added" doc:"sensors that only B has"`
	Removed  int64 `json:"removed" doc:"sensors that only A has"`
	Changed  int64 `json:"changed" doc:"sensors whose model's file has another content"`
	Classes  int64 `json:"classes" doc:"of those, sensors whose model is of another class"`
	Releases int64 `json:"releases" doc:"of those, sensors whose model another release of scikit-learn wrote"`
	Same     int64 `json:"same"`
}

// diffShards is how many shards are compared at once, so that only a part of the members
// is in memory.
const diffShards = 16

// Diff compares two generations, of one fleet or of two, sensor by sensor, by shard, then
// key. Kind Conflict if their key columns differ, NotFound if a generation isn't there
// any more.
func Diff(ctx context.Context, b store.Bucket, from, to Ref, take func(MemberChange) error) (Changes, error) {
	d := differ{take: take}
	var gens [2]*Generation
	refs := []Ref{from, to}
	for i, r := range refs {
		var err error
		if r.Generation == "" {
			gens[i], err = Current(ctx, b, r.Fleet)
		} else {
			gens[i], err = Load(ctx, b, r.Fleet, r.Generation)
		}
		if fleetscore.NotFound.Is(err) {
			return d.total, fleetscore.Errorf(fleetscore.NotFound, "compare fleets", r.String(), "there is no such generation, or it isn't kept any more").
				WithHint("fleetscore fleet list shows the current generations; older ones are kept while jobs use them, and the last three always")
		} else if err != nil {
			return d.total, err
		}
		refs[i].Generation = gens[i].ID
	}
	if !slices.Equal(gens[0].KeyNames, gens[1].KeyNames) {
		return d.total, fleetscore.Errorf(fleetscore.Conflict, "compare fleets", from.String()+" and "+to.String(), "the key columns of one are %s, of the other %s",
			strings.Join(gens[0].KeyNames, ", "), strings.Join(gens[1].KeyNames, ", "))
	}
	d.total = Changes{A: refs[0], B: refs[1], MembersA: gens[0].Members, MembersB: gens[1].Members}
	for first := 0; first < fleetscore.Shards; first += diffShards {
		shards := fleetscore.ShardRange{First: fleetscore.Shard(first), Last: fleetscore.Shard(first + diffShards - 1)}
		a, err := openPack(ctx, PackFolder(b, from.Fleet), gens[0], shards, 0)
		if err != nil {
			return d.total, err
		}
		z, err := openPack(ctx, PackFolder(b, to.Fleet), gens[1], shards, 0)
		if err != nil {
			return d.total, errors.Join(err, a.Close())
		}
		if err := errors.Join(d.shards(a, z), a.Close(), z.Close()); err != nil {
			return d.total, err
		}
	}
	return d.total, nil
}

// differ counts changes.
type differ struct {
	take  func(MemberChange) error
	total Changes
}

// shards compares members that stand in the same order on both sides.
func (d *differ) shards(a, b *Pack) error {
	for i, j := 0, 0; i < a.Len() || j < b.Len(); {
		order := -1
		if i == a.Len() {
			order = 1
		} else if j < b.Len() {
			ka, kb := a.Key(i), b.Key(j)
			order = cmp.Or(cmp.Compare(ka.Shard(), kb.Shard()), cmp.Compare(ka, kb))
		}
		c := MemberChange{}
		if order <= 0 {
			e := a.At(i)
			c.Key, c.A = e.Key, modelOf(e)
			i++
		}
		if order >= 0 {
			e := b.At(j)
			c.Key, c.B = e.Key, modelOf(e)
			j++
		}
		if !d.count(c) {
			continue
		}
		if err := d.take(c); err != nil {
			return err
		}
	}
	return nil
}

// count tells whether there is a change.
func (d *differ) count(c MemberChange) bool {
	switch {
	case c.A == nil:
		d.total.Added++
	case c.B == nil:
		d.total.Removed++
	case c.A.Digest == c.B.Digest && (c.A.File == "") == (c.B.File == ""):
		d.total.Same++
		return false
	default:
		d.total.Changed++
		what := c.What()
		if strings.Contains(what, "class") {
			d.total.Classes++
		}
		if strings.Contains(what, "release") {
			d.total.Releases++
		}
	}
	return true
}

func modelOf(e Entry) *ModelOf {
	m := &ModelOf{File: e.Name, Digest: e.Digest}
	if e.Flags&NoModel != 0 {
		return &ModelOf{}
	}
	if e.Flags&Native == 0 {
		m.Problem = e.Detail
		return m
	}
	kind := kindOf(e.Detail)
	m.Estimators, m.Releases, m.Features = kind.Estimators, kind.Releases, kind.Features
	return m
}

// kindOf reads what compile wrote of a native model.
func kindOf(detail string) ModelKind {
	parts := append(strings.Split(detail, detailSeparator), "", "", "")
	features, _ := strconv.Atoi(parts[2])
	k := ModelKind{Estimators: parts[0], Releases: parts[1], Features: features}
	if parts[3] != "" {
		k.FeatureNames = strings.Split(parts[3], nameSeparator)
	}
	return k
}
