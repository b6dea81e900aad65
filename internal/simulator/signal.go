package simulator

import (
	"math"

	"github.com/fleetscore/fleetscore"
)

// quantity describes what a kind of sensor measures without faults.
type quantity struct {
	name   string
	base   float64 // the middle of the values
	spread float64 // how far the devices' bases differ from base, in both directions
	daily  float64 // the amplitude of the daily cycle
	cycle  float64 // the amplitude of the machine's own cycle
	period float64 // the period of the machine's cycle, in seconds
	noise  float64 // the standard deviation
}

var quantities = []quantity{
	{"temperature", 62, 6, 3, 1.5, 600, 0.4},
	{"pressure", 5.2, 0.5, 0.1, 0.25, 240, 0.06},
	{"vibration", 2.4, 0.4, 0.05, 0.3, 90, 0.12},
	{"current", 14, 2, 0.5, 1.2, 300, 0.35},
	{"flow", 120, 15, 4, 6, 420, 2},
	{"voltage", 230, 1, 1.5, 0.8, 180, 0.6},
	{"humidity", 45, 5, 6, 1, 900, 0.8},
	{"speed", 1480, 20, 5, 12, 120, 4},
	{"level", 70, 8, 2, 10, 1800, 0.7},
	{"torque", 48, 4, 1, 5, 150, 1.1},
}

// signal is the quantity of one sensor.
type signal struct {
	quantity
	dayPhase, cyclePhase float64 // radians
}

func newSignal(tag int, seed uint64) signal {
	q := quantities[tag%len(quantities)]
	q.base += q.spread * (2*unit(mix(seed, 'b')) - 1)
	q.period *= 0.8 + 0.4*unit(mix(seed, 'p'))
	return signal{q, 2 * math.Pi * unit(mix(seed, 'd')), 2 * math.Pi * unit(mix(seed, 'c'))}
}

// at returns the healthy value. Products are converted before they are added, so that
// no processor fuses the two operations and all processors give the same bits.
func (s *signal) at(seed uint64, t fleetscore.Micros) float64 {
	seconds := float64(t) / 1e6
	v := s.base
	v += float64(s.daily * math.Sin(wave(seconds, 86400)+s.dayPhase))
	v += float64(s.cycle * math.Sin(wave(seconds, s.period)+s.cyclePhase))
	v += float64(s.noise * normal(mix(seed, uint64(t))))
	return v
}

// reach returns the largest distance of healthy values from the base.
func (s *signal) reach() float64 { return s.daily + s.cycle + 4*s.noise }

// wave returns the angle of a cycle at a time. It is kept small, so that Sin is exact.
func wave(seconds, period float64) float64 { return 2 * math.Pi * math.Mod(seconds, period) / period }

// normal turns a hash into a normally distributed number (Box and Muller 1958).
func normal(h uint64) float64 {
	u := 1 - unit(h)
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*unit(mix(h, 'n')))
}
