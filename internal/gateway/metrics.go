package gateway

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
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
