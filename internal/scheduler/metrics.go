package scheduler

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// metrics are the scheduler's figures for operators.
type metrics struct {
	jobs     *prometheus.CounterVec
	items    *prometheus.CounterVec
	attempts *prometheus.CounterVec
	errors   *prometheus.CounterVec
	duration prometheus.Histogram
	waiting  prometheus.Gauge
	syncs    *prometheus.CounterVec
	syncTime prometheus.Histogram
}

// What comes of a look at a fleet's models.
const (
	syncUnchanged = "unchanged"
	syncChanged   = "changed"
	syncFailed    = "failed"
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_jobs_total",
			Help: "Jobs that ended, by state."}, []string{"state"}),
		items: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_items_total",
			Help: "Sensors of committed jobs, by outcome."}, []string{"outcome"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_attempts_total",
			Help: "Attempts of tasks that ended, by how."}, []string{"end"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_errors_total",
			Help: "Steps that failed and are tried again, by loop."}, []string{"loop"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fleetscore_scheduler_job_seconds",
			Help: "Time from a job's first lease to its end.", Buckets: prometheus.ExponentialBuckets(0.05, 2, 16)}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "fleetscore_scheduler_waiting_jobs",
			Help: "Jobs that wait for their data."}),
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fleetscore_scheduler_fleet_syncs_total",
			Help: "Looks at fleets' folders of models, by what came of them."}, []string{"result"}),
		syncTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "fleetscore_scheduler_fleet_sync_seconds",
			Help: "Time to look at a fleet's folder and compile what changed.", Buckets: prometheus.ExponentialBuckets(0.01, 4, 10)}),
	}
	for _, r := range []string{syncUnchanged, syncChanged, syncFailed} {
		m.syncs.WithLabelValues(r)
	}
	for _, s := range fleetscore.JobStates {
		if s.Ended() {
			m.jobs.WithLabelValues(string(s))
		}
	}
	for _, o := range fleetscore.Outcomes {
		m.items.WithLabelValues(string(o))
	}
	for _, e := range []dispatch.End{dispatch.Succeeded, dispatch.Failed, dispatch.Expired, dispatch.Lost, dispatch.Canceled} {
		m.attempts.WithLabelValues(string(e))
	}
	for _, l := range []string{"pipelines", "schedules", "plans", "commits", "nodes", "fleets", "logs"} {
		m.errors.WithLabelValues(l)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.jobs, m.items, m.attempts, m.errors, m.duration, m.waiting, m.syncs, m.syncTime} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
