// This module pins LF Edge eKuiper, which bench/ekuiper.go builds and measures. It is a module
// of its own, so that Fleetscore itself doesn't depend on it.
module github.com/fleetscore/fleetscore/bench/ekuiper

go 1.26

require github.com/lf-edge/ekuiper/v2 v2.4.0
