package gateway

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
)

// metrics are the gateway's figures for operators.
type metrics struct {
	readings *prometheus.CounterVec
	requests *prometheus.CounterVec
	body     prometheus.Counter
	appends  *prometheus.HistogramVec
	batch    prometheus.Histogram
	ticks    prometheus.Counter
}

// answers are the statuses a request can end with.
var answers = []int{200, 201, 204, 400, 404, 405, 408, 413, 415, 429, 499, 503}

func newMetrics(reg prometheus.Registerer, queued func() float64) (*metrics, error) {
	m := &metrics{
		readings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleetscore_gateway_readings_total", Help: "Readings by verdict."}, []string{"verdict"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fleetscore_gateway_requests_total", Help: "Requests by HTTP status; 499 means that the client went away."}, []string{"code"}),
		body: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleetscore_gateway_body_bytes_total", Help: "Bytes of bodies, decompressed."}),
		appends: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fleetscore_gateway_append_seconds", Help: "Time of synced appends to the hub by outcome.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}, []string{"outcome"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fleetscore_gateway_batch_readings", Help: "Readings per message of the hub.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 10)}),
		ticks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleetscore_gateway_ticks_total", Help: "Ticks appended to the hub."}),
	}
	m.readings.WithLabelValues("accepted")
	m.readings.WithLabelValues("rejected")
	m.appends.WithLabelValues("done")
	m.appends.WithLabelValues("failed")
	for _, code := range answers {
		m.requests.WithLabelValues(strconv.Itoa(code))
	}
	if reg == nil {
		return m, nil
	}
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fleetscore_gateway_queue_bytes", Help: "Bytes of bodies being received or waiting to be stored."}, queued)
	for _, c := range []prometheus.Collector{m.readings, m.requests, m.body, m.appends, m.batch, m.ticks, waiting} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Way says how readings came in, for people. It tells more than a source: all that comes over HTTP is one source.
type Way string

// The ways. WayHTTP are JSON, NDJSON and CSV; WayAgain are readings that were handed over again.
const (
	WayHTTP        Way = "http"
	WayCloudEvents Way = "cloudevents"
	WayInflux      Way = "influx"
	WayEventHubs   Way = "event_hubs"
	WayMQTT        Way = "mqtt"
	WayKafka       Way = "kafka"
	WayAgain       Way = "again"
)

// Ways are all ways.
var Ways = []Way{WayHTTP, WayCloudEvents, WayInflux, WayEventHubs, WayMQTT, WayKafka, WayAgain}

// Taken is what a gateway took since it was made. Times are zero before the first reading.
type Taken struct {
	Accepted     uint64    `json:"accepted" doc:"readings synced to the hub"`
	Rejected     uint64    `json:"rejected" doc:"readings refused"`
	PerSecond    float64   `json:"per_second" doc:"readings accepted, over the last 10 seconds"`
	FirstArrival time.Time `json:"first_arrival"`
	LastArrival  time.Time `json:"last_arrival"`
	Newest       time.Time `json:"newest" doc:"the latest time that a device gave to a reading"`
}

// Stats is what a gateway took, and by which ways.
type Stats struct {
	Taken
	Ways []WayStats `json:"ways" doc:"those by which readings came"`
}

// WayStats is what came by one way.
type WayStats struct {
	Way Way `json:"way"`
	Taken
}

// Add adds what another server took.
func (s *Stats) Add(other Stats) {
	s.Taken.add(other.Taken)
	for _, o := range other.Ways {
		at := slices.IndexFunc(s.Ways, func(w WayStats) bool { return w.Way == o.Way })
		if at < 0 {
			at = len(s.Ways)
			s.Ways = append(s.Ways, WayStats{Way: o.Way})
		}
		s.Ways[at].add(o.Taken)
	}
}

func (t *Taken) add(other Taken) {
	t.Accepted, t.Rejected, t.PerSecond = t.Accepted+other.Accepted, t.Rejected+other.Rejected, t.PerSecond+other.PerSecond
	if t.FirstArrival.IsZero() || !other.FirstArrival.IsZero() && other.FirstArrival.Before(t.FirstArrival) {
		t.FirstArrival = other.FirstArrival
	}
	if other.LastArrival.After(t.LastArrival) {
		t.LastArrival = other.LastArrival
	}
	if other.Newest.After(t.Newest) {
		t.Newest = other.Newest
	}
}

// Refuses says why no readings are taken for now; empty if they are.
func (g *Gateway) Refuses() string { return g.full() }

// Stats is what the gateway took since it was made.
func (g *Gateway) Stats() (out Stats) {
	out.Ways = []WayStats{}
	now := g.now()
	for _, w := range Ways {
		if t := g.rates[w].taken(now); t.Accepted+t.Rejected > 0 {
			out.Ways = append(out.Ways, WayStats{w, t})
			out.Taken.add(t)
		}
	}
	return out
}

// rate counts readings in seconds.
type rate struct {
	mu      sync.Mutex // guards what follows
	sum     Taken
	seconds [rateSeconds + 1]struct {
		second int64
		n      uint64
	}
}

const rateSeconds = 10

// add counts the readings of a request or message; newest is the latest time that a device gave to one of them, or 0.
func (r *rate) add(now time.Time, accepted, rejected int, newest fleetscore.Micros) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Rejected += uint64(rejected)
	if accepted == 0 {
		return
	}
	r.sum.Accepted += uint64(accepted)
	if r.sum.LastArrival = now.UTC(); r.sum.FirstArrival.IsZero() {
		r.sum.FirstArrival = r.sum.LastArrival
	}
	if newest > 0 && newest.Time().After(r.sum.Newest) {
		r.sum.Newest = newest.Time()
	}
	s := &r.seconds[uint64(now.Unix())%uint64(len(r.seconds))]
	if s.second != now.Unix() {
		s.second, s.n = now.Unix(), 0
	}
	s.n += uint64(accepted)
}

// taken takes the rate from the whole seconds before this one.
func (r *rate) taken(now time.Time) Taken {
	r.mu.Lock()
	defer r.mu.Unlock()
	var n uint64
	for _, s := range r.seconds {
		if age := now.Unix() - s.second; age >= 1 && age <= rateSeconds {
			n += s.n
		}
	}
	out := r.sum
	out.PerSecond = float64(n) / rateSeconds
	return out
}
