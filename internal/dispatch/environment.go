package dispatch

import (
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// EnvironmentOf is the environment for models of a release of scikit-learn: that whose release
// is the longest beginning of it; -1 for none.
func EnvironmentOf(release string, all []fleetscore.PythonEnvironment) int {
	best := -1
	for i, e := range all {
		if (release == e.SKLearn || strings.HasPrefix(release, e.SKLearn+".")) && (best < 0 || len(e.SKLearn) > len(all[best].SKLearn)) {
			best = i
		}
	}
	return best
}

// Share is what the tasks in one image have to do.
type Share struct {
	Environment int              // number of the environment, from 1 on; 0 for all that no image of an environment has
	Keys        []fleetscore.Key // the only keys, sorted; empty if it has all others of the fleet and the rows of unexpected keys
	Except      []fleetscore.Key // of the other shares, sorted, if Keys is empty
}

// Shares divides the keys of a job among the images that their models need. made has the release
// of scikit-learn of each model that Python scores; chosen are the only keys that the job has,
// and empty if it has the whole fleet, of so many members. Shares without keys are left out. If the
// job has the whole fleet, one share takes the rows of unexpected keys too: share 0 if it has keys, and else
// that with the most keys, so that no task reads rows for unexpected keys alone.
func Shares(made map[fleetscore.Key]string, chosen []fleetscore.Key, members int64, all []fleetscore.PythonEnvironment) (out []Share) {
	shares := make([]Share, len(all)+1)
	place := func(k fleetscore.Key) int {
		if release, is := made[k]; is {
			if i := EnvironmentOf(release, all); i >= 0 && all[i].Image != "" {
				return i + 1
			}
		}
		return 0
	}
	for _, k := range chosen {
		s := &shares[place(k)]
		s.Keys = append(s.Keys, k)
	}
	rest := -1
	if len(chosen) == 0 {
		rest = 0
		left := members
		for k := range made {
			if n := place(k); n > 0 {
				shares[n].Keys = append(shares[n].Keys, k)
				left--
			}
		}
		for n := range shares {
			if left <= 0 && len(shares[n].Keys) > len(shares[rest].Keys) {
				rest = n
			}
		}
		for n, s := range shares {
			if n != rest {
				shares[rest].Except = append(shares[rest].Except, s.Keys...)
			}
		}
		shares[rest].Keys = nil
	}
	for n, s := range shares {
		s.Environment = n
		slices.Sort(s.Keys)
		slices.Sort(s.Except)
		if len(s.Keys) > 0 || n == rest {
			out = append(out, s)
		}
	}
	return out
}
