package fleet

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
)

// Diagnosis is what is known of a fleet's models without scoring.
type Diagnosis struct {
	Native int64       `json:"native"` // sensors whose model is scored natively
	Python int64       `json:"python"` // sensors whose model auto scores by Python
	Lost   int64       `json:"lost"`   // sensors whose model no runtime can score, because there is none or it can't be read
	Kinds  []ModelKind `json:"kinds"`  // the models that can be scored natively, most first
	Causes []Cause     `json:"causes"` // what is wrong, most harmful first; empty if nothing is
	// Runtimes are the runtimes that auto chooses, and why, most models first.
	Runtimes []Choice `json:"runtimes,omitempty"`
}

// Choice is the runtime that some models are scored with, and why.
type Choice struct {
	Runtime  fleetscore.RuntimeName `json:"runtime,omitempty"` // empty if none scores them
	Reason   string                 `json:"reason"`
	Fix      string                 `json:"fix,omitempty"`       // what to do if that isn't wanted
	MadeWith string                 `json:"made_with,omitempty"` // the releases that the files name
	Sensors  int64                  `json:"sensors"`
	Members  []Affected             `json:"members"` // the first of them, at most MaxExamples
}

// ModelKind is models of the same estimators and releases.
type ModelKind struct {
	Estimators string `json:"estimators"` // such as "StandardScaler → OneClassSVM"
	Releases   string `json:"releases"`   // of scikit-learn, as the files record them; may be empty
	Features   int    `json:"features"`   // columns a row must have; 0 for any number
	// FeatureNames are those that the models were fitted with; empty where they
	// have none, or very many.
	FeatureNames []string `json:"feature_names,omitempty"`
	Models       int64    `json:"models"`
	Example      string   `json:"example"` // one of the sensors
}

// Cause is one thing that is wrong with some of a fleet's sensors.
type Cause struct {
	Code    CauseCode  `json:"code"`
	Message string     `json:"message"` // what, why and what to do
	Sensors int64      `json:"sensors"`
	Members []Affected `json:"members"` // the first of them, at most MaxExamples
}

// Affected is a sensor that a cause is about.
type Affected struct {
	Key  string `json:"key"` // as people read it, "3/pressure"
	Name string `json:"name,omitempty"`
}

// MaxExamples is how many sensors a cause names.
const MaxExamples = 20

// CauseCode names a cause.
type CauseCode string

// The causes, most harmful first: those before TooOldModel keep a sensor from
// being scored, or make its predictions worthless.
const (
	QuarantinedModel  CauseCode = "quarantined" // taken out of scoring after repeated harm
	HarmfulModel      CauseCode = "harmful"     // it did harm when it was scored last
	HoldsCodeModel    CauseCode = "holds_code"  // Python would run code if it read the file
	UnreadableModel   CauseCode = "unreadable"
	UnsupportedModel  CauseCode = "unsupported"
	NotFiniteModel    CauseCode = "not_finite"
	MissingModel      CauseCode = "no_model"
	WrongFeatures     CauseCode = "wrong_features"
	WrongFeatureNames CauseCode = "wrong_feature_names"
	FlagsEveryRow     CauseCode = "flags_everything"
	FlagsNoRow        CauseCode = "flags_nothing"
	ConstantModel     CauseCode = "constant"
	TooOldModel       CauseCode = "too_old"
	DuplicateModel    CauseCode = "duplicate"
)

var causeOrder = []CauseCode{QuarantinedModel, HarmfulModel, HoldsCodeModel, UnreadableModel, UnsupportedModel, NotFiniteModel, MissingModel, WrongFeatures, WrongFeatureNames, FlagsEveryRow, FlagsNoRow, ConstantModel, TooOldModel, DuplicateModel}

var causeMessages = map[CauseCode]string{
	MissingModel:  "the sensor is expected and has no model: its rows end as no_model; train one, or give its class a default",
	FlagsEveryRow: "every row is an outlier, whatever its values: the model learned nothing; train it again with more or other rows",
	FlagsNoRow:    "no row is an outlier, whatever its values: the model learned nothing; train it again with more or other rows",
	ConstantModel: "every row gets the same class or value, whatever its values: the model learned nothing; train it again with more or other rows",
	TooOldModel:   "a current scikit-learn can't load or score the file; Fleetscore scores it correctly, but train it again before you need it in Python",
}

// maxKinds bounds the kinds that are told apart by feature names: a fleet may have
// names of their own for each of a million models.
const maxKinds = 10_000

// doctor gathers a fleet's health.
type doctor struct {
	kinds   map[string]*ModelKind
	causes  map[string]*Cause
	choices map[string]*counted
	alike   map[alike]*counted
	lost    int64
	files   []file // for duplicates
}

func newDoctor() doctor {
	return doctor{kinds: map[string]*ModelKind{}, causes: map[string]*Cause{}, choices: map[string]*counted{}, alike: map[alike]*counted{}}
}

// file is the beginning of a file's digest and a member that has it.
type file struct {
	digest uint64
	member int32
}

// Examine gives the health of a pack's members.
func (p *Pack) Examine() Diagnosis {
	d := newDoctor()
	for i, e := range p.All() {
		d.member(i, &e)
	}
	d.duplicates(p.At)
	return d.health()
}

// Examine reads a folder's models and gives their health.
func (f *Folder) Examine(ctx context.Context, opt Options) (Diagnosis, error) {
	b := newBuilder(f.b, nil, opt, len(f.members))
	if err := b.examineShared(ctx, f.members); err != nil {
		return Diagnosis{}, err
	}
	entries := make([]Entry, len(f.members))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	const bunch = 512
	for first := 0; first < len(f.members); first += bunch {
		group.Go(func() error {
			members := f.members[first:min(first+bunch, len(f.members))]
			rows, all := make([]segmentRow, len(members)), make([]int, len(members))
			for i := range all {
				all[i] = i
			}
			if _, err := b.readAll(ctx, rows, members, all, nil); err != nil {
				return err
			}
			for i, r := range rows {
				m := members[i]
				if r.key == "" {
					r = segmentRow{flags: Unreadable, detail: "the file is gone since it was listed"}
				}
				entries[first+i] = Entry{Key: m.Key, Name: m.Name, Digest: r.digest, SizeBytes: r.size, Flags: r.flags}.with(r.detail)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Diagnosis{}, err
	}
	d := newDoctor()
	for i := range entries {
		d.member(i, &entries[i])
	}
	d.duplicates(func(i int) Entry { return entries[i] })
	return d.health(), nil
}

// examineShared reads the models that many members have, each once.
func (b *builder) examineShared(ctx context.Context, members []Member) error {
	b.shared = map[string]segmentRow{}
	for _, m := range members {
		if _, done := b.shared[m.Name]; done || !m.shared {
			continue
		}
		rows := make([]segmentRow, 1)
		if err := (&lane{builder: b, rows: rows}).readOne(ctx, m, 0); err != nil {
			return err
		}
		b.read.Add(1)
		rows[0].flags |= Shared
		b.shared[m.Name] = rows[0]
	}
	return nil
}

func (d *doctor) member(i int, e *Entry) {
	d.choose(e)
	add := func(code CauseCode, message string) { d.add(code, message, message, e) }
	switch {
	case e.Flags&NoModel != 0:
		add(MissingModel, causeMessages[MissingModel])
		return
	case e.Flags&Native == 0:
		code := causeOf(e.Flags)
		d.add(code, fleetscore.WithoutNumbers(e.Detail), e.Detail, e)
	default:
		id := e.Detail
		k := d.kinds[id]
		if k == nil && len(d.kinds) >= maxKinds {
			id = id[:strings.LastIndex(id, detailSeparator)+1] // without names
			k = d.kinds[id]
		}
		if k == nil {
			kind := kindOf(id)
			kind.Example, k = e.Key.String(), &kind
			d.kinds[id] = k
		}
		k.Models++
		for _, f := range []struct {
			flag Flags
			code CauseCode
		}{{FlagsEverything, FlagsEveryRow}, {FlagsNothing, FlagsNoRow}, {Constant, ConstantModel}, {TooOld, TooOldModel}} {
			if e.Flags&f.flag != 0 {
				add(f.code, causeMessages[f.code])
			}
		}
	}
	if e.Flags&(Shared|Unreadable) == 0 {
		d.files = append(d.files, file{binary.LittleEndian.Uint64(e.Digest[:]), int32(i)})
	}
}

// choose counts a sensor where the runtime is that auto chooses for it.
func (d *doctor) choose(e *Entry) {
	like := alike{e.Flags, e.Detail, e.Made}
	c, known := d.alike[like]
	if !known {
		c = d.choice(e)
		if len(d.alike) < maxAlike {
			d.alike[like] = c
		}
	}
	if c.Runtime == "" && e.Flags&HoldsCode == 0 {
		d.lost++
	}
	if c.uncounted {
		return
	}
	c.Sensors++
	if len(c.Members) < MaxExamples {
		c.Members = append(c.Members, Affected{e.Key.String(), e.Name})
	}
}

// alike is what the choice of a runtime depends on. Many models are alike, so that most choices
// are made once.
type alike struct {
	flags        Flags
	detail, made string
}

// maxAlike bounds how many of these are remembered.
const maxAlike = 10_000

// choice finds the choice of a sensor among those that are counted, without regard to the
// numbers in their reasons.
func (d *doctor) choice(e *Entry) *counted {
	c := &counted{Choice: e.Choose(fleetscore.RuntimeAuto)}
	id := string(c.Runtime) + "\x00" + fleetscore.WithoutNumbers(c.Reason) + "\x00" + c.MadeWith
	if have := d.choices[id]; have != nil {
		return have
	}
	if c.uncounted = len(d.choices) >= maxKinds; !c.uncounted {
		d.choices[id] = c
	}
	return c
}

// counted is a choice while its sensors are counted.
type counted struct {
	Choice
	uncounted bool // there were too many others before
}

// Choose is the runtime that scores a member where the pipeline's runtime is use, and why. Its
// Sensors and Members stay empty.
func (e *Entry) Choose(use fleetscore.RuntimeName) Choice {
	none := func(fix string) Choice { return Choice{Reason: e.Detail, Fix: fix, MadeWith: e.Made} }
	switch {
	case e.Flags&NoModel != 0:
		return Choice{Reason: "the sensor has no model", Fix: "train one, or give its class a default"}
	case e.Flags&HoldsCode != 0 && (use == "" || use == fleetscore.RuntimeNative || use == fleetscore.RuntimeAuto):
		return none("make the file anew without that; or, if you trust those who made it, write runtime: python")
	case e.Flags&(Unreadable|NotModel) != 0:
		return none("")
	case use != fleetscore.RuntimeNative && use != fleetscore.RuntimeAuto && use != "":
		return Choice{Runtime: use, Reason: "the pipeline says runtime: " + string(use), MadeWith: e.Made}
	case e.Flags&Native != 0:
		made := ""
		if k := kindOf(e.Detail); k.Releases != "" {
			made = "scikit-learn " + k.Releases
		}
		return Choice{Runtime: fleetscore.RuntimeNative, Reason: "all of its classes are read as data", MadeWith: made}
	case use == fleetscore.RuntimeAuto:
		return Choice{Runtime: fleetscore.RuntimePython, Reason: e.Detail, MadeWith: e.Made,
			Fix: "start the nodes with --python; or train the model with classes that are scored natively (docs/sklearn.md)"}
	}
	return none("write runtime: auto in the pipeline and start its nodes with --python; or train the model with classes that are scored natively (docs/sklearn.md)")
}

// Split says how many sensors a pipeline scores with which runtime.
type Split struct {
	Pipeline string                 `json:"pipeline"`
	Runtime  fleetscore.RuntimeName `json:"runtime"` // that the pipeline says
	Native   int64                  `json:"native"`
	Other    int64                  `json:"other"` // scored by Python, or by the pipeline's command
	None     int64                  `json:"none"`  // sensors that end as failed or no_model, whatever the rows
}

// Split counts what a pipeline does with so many members.
func (h Diagnosis) Split(pipeline string, use fleetscore.RuntimeName, members int64) Split {
	s := Split{Pipeline: pipeline, Runtime: cmp.Or(use, fleetscore.RuntimeNative)}
	switch s.Runtime {
	case fleetscore.RuntimeNative:
		s.Native = h.Native
	case fleetscore.RuntimeAuto:
		s.Native, s.Other = h.Native, h.Python
	default:
		s.Other = members - h.Lost
	}
	s.None = members - s.Native - s.Other
	return s
}

func causeOf(f Flags) CauseCode {
	switch {
	case f&HoldsCode != 0:
		return HoldsCodeModel
	case f&Unsupported != 0:
		return UnsupportedModel
	case f&NotFinite != 0:
		return NotFiniteModel
	}
	return UnreadableModel
}

// add counts a sensor in the cause of that group.
func (d *doctor) add(code CauseCode, group, message string, e *Entry) {
	id := string(code) + "\x00" + group
	c := d.causes[id]
	if c == nil {
		c = &Cause{Code: code, Message: message, Members: []Affected{}}
		d.causes[id] = c
	}
	c.Sensors++
	if len(c.Members) < MaxExamples {
		c.Members = append(c.Members, Affected{e.Key.String(), e.Name})
	}
}

// duplicates finds files of the same content under several names.
func (d *doctor) duplicates(at func(int) Entry) {
	slices.SortFunc(d.files, func(a, b file) int { return cmp.Or(cmp.Compare(a.digest, b.digest), cmp.Compare(a.member, b.member)) })
	const message = "the same file under several names: as a sensor's own model, trained on its own rows, that is most likely a mistake"
	for len(d.files) > 0 {
		n := 1
		for n < len(d.files) && d.files[n].digest == d.files[0].digest {
			n++
		}
		same := d.files[:n]
		d.files = d.files[n:]
		if n == 1 {
			continue
		}
		first := at(int(same[0].member))
		if !slices.ContainsFunc(same[1:], func(f file) bool { return at(int(f.member)).Name != first.Name }) {
			continue // a list says that they share it
		}
		for _, f := range same {
			e := at(int(f.member))
			d.add(DuplicateModel, message, message, &e)
		}
	}
}

func (d *doctor) health() Diagnosis {
	h := Diagnosis{Kinds: []ModelKind{}, Causes: []Cause{}, Lost: d.lost}
	for _, c := range d.choices {
		if c.Runtime == fleetscore.RuntimePython {
			h.Python += c.Sensors
		}
		slices.SortFunc(c.Members, func(a, b Affected) int { return cmp.Compare(a.Key, b.Key) })
		h.Runtimes = append(h.Runtimes, c.Choice)
	}
	slices.SortFunc(h.Runtimes, func(a, b Choice) int {
		return cmp.Or(cmp.Compare(b.Sensors, a.Sensors), cmp.Compare(a.Runtime, b.Runtime), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.MadeWith, b.MadeWith))
	})
	h.Runtimes = h.Runtimes[:min(len(h.Runtimes), maxGroups)]
	for _, k := range d.kinds {
		h.Kinds = append(h.Kinds, *k)
		h.Native += k.Models
	}
	slices.SortFunc(h.Kinds, func(a, b ModelKind) int {
		return cmp.Or(cmp.Compare(b.Models, a.Models), cmp.Compare(a.Estimators, b.Estimators), cmp.Compare(a.Releases, b.Releases), cmp.Compare(a.Features, b.Features), slices.Compare(a.FeatureNames, b.FeatureNames))
	})
	for _, c := range d.causes {
		slices.SortFunc(c.Members, func(a, b Affected) int { return cmp.Compare(a.Key, b.Key) })
		h.Causes = append(h.Causes, *c)
	}
	h.sort()
	h.Kinds, h.Causes = h.Kinds[:min(len(h.Kinds), maxGroups)], h.Causes[:min(len(h.Causes), maxGroups)]
	return h
}

func (h *Diagnosis) sort() {
	slices.SortFunc(h.Causes, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(slices.Index(causeOrder, a.Code), slices.Index(causeOrder, b.Code)), cmp.Compare(b.Sensors, a.Sensors), cmp.Compare(a.Message, b.Message))
	})
}

// Against is the diagnosis with the models that don't take the features that
// rows, such as those of "pipeline a", have; an example stands for those of its
// kind.
func (h Diagnosis) Against(rows string, features []string, by fleetscore.FeatureOrder) Diagnosis {
	causes := map[string]*Cause{}
	var found []*Cause
	add := func(code CauseCode, message string, k *ModelKind) {
		c := causes[message]
		if c == nil {
			c = &Cause{Code: code, Message: message, Members: []Affected{}}
			causes[message], found = c, append(found, c)
		}
		c.Sensors += k.Models
		if len(c.Members) < MaxExamples {
			c.Members = append(c.Members, Affected{Key: k.Example})
		}
	}
	for i := range h.Kinds {
		k := &h.Kinds[i]
		switch {
		case len(k.FeatureNames) > 0 && by != fleetscore.FeaturesByPosition:
			if _, err := fleetscore.MatchFeatures(features, k.FeatureNames); err != nil {
				add(WrongFeatureNames, fmt.Sprintf("%s: %v: the sensor ends as failed; name the columns that it was trained with, or take them by position", rows, err), k)
			}
		case k.Features != 0 && k.Features != len(features):
			add(WrongFeatures, fmt.Sprintf("the model takes %d features, %s has %d: the sensor ends as failed; name the features it was trained with", k.Features, rows, len(features)), k)
		}
	}
	if len(found) == 0 {
		return h
	}
	h.Causes = slices.Clone(h.Causes)
	for _, c := range found {
		h.Causes = append(h.Causes, *c)
	}
	h.sort()
	return h
}

// WithHarm adds the models that are in quarantine, and those that did harm when they were
// scored last, grouped by what they did.
func (h Diagnosis) WithHarm(harms []fleetscore.Harm) Diagnosis {
	if len(harms) == 0 {
		return h
	}
	d := doctor{causes: map[string]*Cause{}}
	for _, harm := range harms {
		code, message := HarmfulModel, "the model did harm when pipeline "+harm.Pipeline+" scored it last, and gets into quarantine if it goes on: "+harm.Reason
		if harm.Quarantined != nil {
			code, message = QuarantinedModel, "pipeline "+harm.Pipeline+" doesn't score the model any more, as it did harm in several jobs in a row: "+harm.Reason+"; give the sensor another model, or release this one (fleetscore fleet release)"
		}
		d.add(code, fleetscore.WithoutNumbers(message), message, &Entry{Key: harm.Key})
	}
	h.Causes = slices.Clone(h.Causes)
	for _, c := range d.causes {
		h.Causes = append(h.Causes, *c)
	}
	h.sort()
	return h
}

// maxGroups is how many kinds and causes a generation keeps.
const maxGroups = 100

// judge examines the new generation and sets its id.
func (b *builder) judge(ctx context.Context, g *Generation) error {
	p, err := openPack(ctx, b.dst, g, fleetscore.AllShards, 0)
	if err != nil {
		return err
	}
	g.Health = p.Examine()
	return errors.Join(g.identify(), p.Close())
}
