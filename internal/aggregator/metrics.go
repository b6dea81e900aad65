package aggregator

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore/internal/window"
)

// metrics are a query's figures for operators.
type metrics struct {
	readings *prometheus.CounterVec
	rows     prometheus.Counter
	retries  prometheus.Counter
	gone     prometheus.Counter
	revised  prometheus.Counter
	reread   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, queryName, dataset string) (*metrics, error) {
	label := prometheus.Labels{"query": queryName, "dataset": dataset}
	m := &metrics{
		readings: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_aggregator_readings_total",
			Help: "Readings by verdict; done ones were committed before a restart.", ConstLabels: label}, []string{"verdict"}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{Name: "fleetscore_aggregator_rows_total",
			Help: "Rows committed.", ConstLabels: label}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{Name: "fleetscore_aggregator_retries_total",
			Help: "Operations on store or hub that failed and were tried again.", ConstLabels: label}),
		gone: prometheus.NewCounter(prometheus.CounterOpts{Name: "fleetscore_aggregator_gone_messages_total",
			Help: "Messages that the hub removed by hub.retention before they were aggregated.", ConstLabels: label}),
		revised: prometheus.NewCounter(prometheus.CounterOpts{Name: "fleetscore_aggregator_revisions_total",
			Help: "Commits for which rows were computed again because late readings came.", ConstLabels: label}),
		reread: prometheus.NewCounter(prometheus.CounterOpts{Name: "fleetscore_aggregator_reread_readings_total",
			Help: "Readings that were read again to compute rows again because late readings came.", ConstLabels: label}),
	}
	for v := window.Counted; v <= window.Done; v++ {
		m.readings.WithLabelValues(v.String())
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.readings, m.rows, m.retries, m.gone, m.revised, m.reread} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) count(n [window.Done + 1]int64) {
	for v, k := range n {
		if k > 0 {
			m.readings.WithLabelValues(window.Verdict(v).String()).Add(float64(k))
		}
	}
}
