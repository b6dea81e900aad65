package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts answers by their class of status and not by path, so that the number of
// time series is bounded.
type metrics struct {
	requests map[int]prometheus.Counter
	seconds  prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetscore_api_requests_total", Help: "Requests answered, by class of status."}, []string{"class"})
	m := &metrics{requests: map[int]prometheus.Counter{}, seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "fleetscore_api_request_seconds", Help: "Time to answer a request, waiting included.",
		Buckets: []float64{.001, .005, .02, .1, .5, 2, 10, 60}})}
	for i, class := range []string{"1xx", "2xx", "3xx", "4xx", "5xx"} {
		m.requests[i+1] = requests.WithLabelValues(class)
	}
	if r == nil {
		return m, nil
	}
	if err := r.Register(requests); err != nil {
		return nil, err
	}
	return m, r.Register(m.seconds)
}

func (m *metrics) observe(status int, took time.Duration) {
	if c := m.requests[max(status, 200)/100]; c != nil {
		c.Inc()
	}
	m.seconds.Observe(took.Seconds())
}
