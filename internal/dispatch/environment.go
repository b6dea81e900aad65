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
	Keys        []fleetscore.Key // the only keys, sorted; empty in share 0 if it has all others of the fleet
	Except      []fleetscore.Key // of the other shares, sorted, if Keys is empty
}

// Shares divides the keys of a job among the images that their models need. made has the release
// of scikit-learn of each model that Python scores; chosen are the only keys that the job has,
// and empty if it has the whole fleet. Share 0 is the first one; it is left out if the job has no
// key for it, unless the job has the whole fleet: then its tasks take the rows of unexpected keys.
func Shares(made map[fleetscore.Key]string, chosen []fleetscore.Key, all []fleetscore.PythonEnvironment) (out []Share) {
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
	if len(chosen) == 0 {
		for k := range made {
			if n := place(k); n > 0 {
				shares[n].Keys = append(shares[n].Keys, k)
				shares[0].Except = append(shares[0].Except, k)
			}
		}
	}
	for n, s := range shares {
		s.Environment = n
		slices.Sort(s.Keys)
		slices.Sort(s.Except)
		if len(s.Keys) > 0 || n == 0 && len(chosen) == 0 {
			out = append(out, s)
		}
	}
	return out
}
