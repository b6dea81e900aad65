package scheduler

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
)

// metrics are the scheduler's figures for operators.
type metrics struct {
	jobs     *prometheus.CounterVec
	shadows  *prometheus.CounterVec
	items    *prometheus.CounterVec
	errors   *prometheus.CounterVec
	duration prometheus.Histogram
	waiting  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_jobs_total",
			Help: "Jobs that ended, by state, except those of shadow pipelines."}, []string{"state"}),
		shadows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_shadow_jobs_total",
			Help: "Jobs of shadow pipelines that ended, by state."}, []string{"state"}),
		items: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_items_total",
			Help: "Sensors of committed jobs, by outcome, except those of shadow pipelines."}, []string{"outcome"}),
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
			m.shadows.WithLabelValues(string(s))
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
	for _, c := range []prometheus.Collector{m.jobs, m.shadows, m.items, m.errors, m.duration, m.waiting} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// ended counts a job that ended so. Jobs of shadow pipelines are counted apart: whoever
// is told of failed jobs isn't told of a candidate's.
func (m *metrics) ended(p fleetscore.PipelineConfig, state fleetscore.JobState) {
	if p.Shadow != "" {
		m.shadows.WithLabelValues(string(state)).Inc()
		return
	}
	m.jobs.WithLabelValues(string(state)).Inc()
}

// committed counts what a job that ended at a time made visible.
func (m *metrics) committed(j fleetscore.Job, at time.Time) {
	if j.Config.Shadow != "" {
		return
	}
	for o, n := range j.Outcomes {
		m.items.WithLabelValues(string(o)).Add(float64(n))
	}
	if j.Started != nil {
		m.duration.Observe(at.Sub(*j.Started).Seconds())
	}
}
