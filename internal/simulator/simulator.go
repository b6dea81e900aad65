// Package simulator simulates a fleet of devices: the value of each sensor at each
// time, and when and how the sensor is faulty.
//
// Everything is a function of the configuration, the sensor and the time, so any time
// can be simulated without the time before it, again and in pieces, with the same
// result. A reading says in the column Fault whether it is faulty, so that
// predictions can be compared with it.
//
// The package sends nothing and uses no clock. A Fleet is immutable and may be used
// concurrently.
package simulator

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Config describes a fleet.
type Config struct {
	Seed      uint64        // another seed gives another fleet; 0 is a valid seed
	Devices   int           // named "1", "2", …; 0 means 5
	Tags      int           // sensors per device, see TagName; 0 means 4
	Interval  time.Duration // between two readings of a sensor, whole milliseconds; 0 means 1 s
	FaultRate float64       // faults per sensor and hour; 0 means 3; negative means none; at most 12
}

// Defaults fills the fields that are zero.
func (c Config) Defaults() Config {
	if c.Devices == 0 {
		c.Devices = 5
	}
	if c.Tags == 0 {
		c.Tags = 4
	}
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.FaultRate == 0 {
		c.FaultRate = 3
	}
	return c
}

// Validate checks a configuration whose defaults are filled in.
func (c Config) Validate() error {
	switch {
	case c.Devices < 1 || c.Tags < 1 || c.Devices > 10_000_000/c.Tags:
		return fleetscore.Errorf(fleetscore.Invalid, "simulate", "", "%d devices with %d tags are not possible", c.Devices, c.Tags).WithHint("choose 1 to 10,000,000 sensors")
	case c.Interval < time.Millisecond || c.Interval > time.Hour || c.Interval%time.Millisecond != 0:
		return fleetscore.Errorf(fleetscore.Invalid, "simulate", "", "a reading every %v is not possible", c.Interval).WithHint("use whole milliseconds, at most 1h")
	case !(c.FaultRate <= maxFaultRate):
		return fleetscore.Errorf(fleetscore.Invalid, "simulate", "", "%v faults per sensor and hour are too many", c.FaultRate).WithHint("use at most %d", maxFaultRate)
	}
	return nil
}

// The columns of a reading.
const (
	TimeName   = "TS"
	DeviceName = "Device"
	TagName    = "Tag"
	ValueName  = "Value"
	FaultName  = "Fault"
)

// Reading is one value of one sensor.
type Reading struct {
	Device string
	Tag    string
	Time   fleetscore.Micros // whole milliseconds
	Value  float64           // three decimals
	Fault  bool              // whether the sensor was faulty
}

// CSVHeader is the first line of a file with lines of AppendCSV.
const CSVHeader = "TS,Device,Tag,Value,Fault\n"

const timeLayout = "2006-01-02T15:04:05.000Z"

// AppendCSV appends the reading as a line of CSV.
func (r Reading) AppendCSV(dst []byte) []byte {
	dst = r.Time.Time().AppendFormat(dst, timeLayout)
	dst = append(dst, ',')
	dst = append(dst, r.Device...)
	dst = append(dst, ',')
	dst = append(dst, r.Tag...)
	dst = append(dst, ',')
	dst = strconv.AppendFloat(dst, r.Value, 'f', -1, 64)
	return append(dst, ',', '0'+r.fault(), '\n')
}

// AppendNDJSON appends the reading as a line of newline-delimited JSON.
func (r Reading) AppendNDJSON(dst []byte) []byte {
	dst = append(dst, `{"TS":"`...)
	dst = r.Time.Time().AppendFormat(dst, timeLayout)
	dst = append(dst, `","Device":"`...)
	dst = append(dst, r.Device...)
	dst = append(dst, `","Tag":"`...)
	dst = append(dst, r.Tag...)
	dst = append(dst, `","Value":`...)
	dst = strconv.AppendFloat(dst, r.Value, 'f', -1, 64)
	dst = append(dst, `,"Fault":`...)
	return append(dst, '0'+r.fault(), '}', '\n')
}

func (r Reading) fault() byte {
	if r.Fault {
		return 1
	}
	return 0
}

// Fleet is a configured fleet.
type Fleet struct {
	cfg     Config
	sensors []sensor // in the order of their offsets within the interval
}

// sensor is one pair (device, tag).
type sensor struct {
	device, tag string
	seed        uint64
	offset      int64 // the offset of its readings within the interval, in milliseconds
	signal      signal
}

// New builds a fleet. Fields that are zero get their defaults.
func New(cfg Config) (*Fleet, error) {
	cfg = cfg.Defaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f := &Fleet{cfg: cfg}
	for d := range cfg.Devices {
		for t := range cfg.Tags {
			seed := mix(mix(cfg.Seed, uint64(d+1)), uint64(t+1))
			f.sensors = append(f.sensors, sensor{
				device: deviceName(d),
				tag:    Tag(t),
				seed:   seed,
				offset: int64(mix(seed, 'o') % uint64(cfg.Interval.Milliseconds())),
				signal: newSignal(t, seed),
			})
		}
	}
	slices.SortStableFunc(f.sensors, func(a, b sensor) int { return int(a.offset - b.offset) })
	return f, nil
}

// deviceName is the name of the i-th device, counted from 0.
func deviceName(i int) string { return strconv.Itoa(i + 1) }

// Tag returns the name of the i-th sensor of every device, counted from 0.
func Tag(i int) string {
	name := quantities[i%len(quantities)].name
	if n := i / len(quantities); n > 0 {
		return fmt.Sprintf("%s%d", name, n+1)
	}
	return name
}

// Config returns the fleet's configuration, with defaults filled in.
func (f *Fleet) Config() Config { return f.cfg }

// Readings yields the readings of from < time <= to in time order.
func (f *Fleet) Readings(from, to time.Time) iter.Seq[Reading] {
	return func(yield func(Reading) bool) {
		after, last := fleetscore.MicrosOf(from), fleetscore.MicrosOf(to)
		interval := f.cfg.Interval.Milliseconds()
		for round := floorDiv(int64(after), interval*1000); ; round++ {
			start := round * interval
			if fleetscore.Micros(start*1000) > last {
				return
			}
			for i := range f.sensors {
				s := &f.sensors[i]
				t := fleetscore.Micros((start + s.offset) * 1000)
				if t <= after {
					continue
				}
				if t > last {
					break
				}
				value, fault := f.read(s, t)
				if !yield(Reading{Device: s.device, Tag: s.tag, Time: t, Value: value, Fault: fault}) {
					return
				}
			}
		}
	}
}

// read returns the value of a sensor, and whether the sensor is faulty.
func (f *Fleet) read(s *sensor, t fleetscore.Micros) (float64, bool) {
	value := s.signal.at(s.seed, t)
	fault, ok := f.faultAt(s, t)
	if ok {
		value = fault.apply(s, value, t)
	}
	return math.Round(value*1000) / 1000, ok
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// mix hashes two numbers into one (the finalizer of SplitMix64 over their sum).
func mix(a, b uint64) uint64 {
	x := a + (b+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit turns a hash into a number in [0, 1).
func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }
