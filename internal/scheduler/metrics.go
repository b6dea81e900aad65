package scheduler

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
)

// metrics are the scheduler's figures for operators.
type metrics struct {
	jobs     *prometheus.CounterVec
	items    *prometheus.CounterVec
	errors   *prometheus.CounterVec
	duration prometheus.Histogram
	waiting  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_jobs_total",
			Help: "Jobs that ended, by state."}, []string{"state"}),
		items: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_items_total",
			Help: "Sensors of committed jobs, by outcome."}, []string{"outcome"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_errors_total",
			Help: "Steps that failed and are tried again, by loop."}, []string{"loop"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fleetscore_scheduler_job_seconds",
			Help: "Time from a job's first lease to its end.", Buckets: prometheus.ExponentialBuckets(0.05, 2, 16)}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "fleetscore_scheduler_waiting_jobs",
			Help: "Jobs that wait for their data."}),
	}
	for _, s := range fleetscore.JobStates {
		if s.Ended() {
			m.jobs.WithLabelValues(string(s))
		}
	}
	for _, o := range fleetscore.Outcomes {
		m.items.WithLabelValues(string(o))
	}
	for _, l := range []string{"pipelines", "schedules", "plans", "commits"} {
		m.errors.WithLabelValues(l)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.jobs, m.items, m.errors, m.duration, m.waiting} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
